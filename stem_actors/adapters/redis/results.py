"""Task records in Redis: one key each, found by id alone, which the server forgets in time; and an index to list them by.

The broker beside it stores its records with the same Lua functions, in its own scripts (`scripts/common.lua`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgpack

from stem_actors.adapters.record_rows import plain
from stem_actors.adapters.redis.connection import Call, Listener, Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import ErrorInfo
from stem_actors.model.record import TaskRecord
from stem_actors.ports import RecordPage

__all__ = ["RedisResults", "listed", "packed_record", "read_record", "read_records"]

MOST_AT_ONCE = 1000
PURGE_LIMIT = 5000  # records a call
LOOK_EVERY = 5.0  # seconds between two looks of one who waits: announcements are hints
SPARE_LISTENERS = 4

_CODES = {
    TaskState.QUEUED: "q",
    TaskState.RUNNING: "r",
    TaskState.RETRIED: "t",
    TaskState.SUCCEEDED: "s",
    TaskState.FAILED: "f",
    TaskState.CANCELLED: "c",
}
_STATES = {code.encode(): state for state, code in _CODES.items()}
_ENDINGS = {state: f"{state.finality}{code}" for state, code in _CODES.items()}


class RedisResults:
    """A `ResultBackend`. Any thread."""

    def __init__(self, server: Server, namespace: str, ttl: float) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._ttl_ms = round(ttl * 1000)
        self._lock = threading.Lock()
        self._spare: list[Listener] = []
        self._is_closed = False

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        return [bool(stored) for stored in self._store("store", records)]

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        now = self._server.now()
        return [
            _record(record.id, standing or None, now)
            for record, standing in zip(records, self._store("announce", records), strict=True)
        ]

    def _store(self, script: str, records: Sequence[TaskRecord]) -> list[Any]:
        calls = []
        for start in range(0, len(records), MOST_AT_ONCE):
            some = records[start : start + MOST_AT_ONCE]
            keys = [self._keys.results, *(self._keys.result(record.id) for record in some)]
            arguments = [self._server.given, self._ttl_ms, listed(some), *map(packed_record, some)]
            calls.append(Call(Script.named(script), keys, arguments))
        return [answer for answers in self._server.run_all(calls) for answer in answers]

    def get(self, task_id: str) -> TaskRecord | None:
        return read_record(self._server, self._keys, task_id)

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        wanted = list(dict.fromkeys(task_ids))
        found = self._final(wanted)
        if len(found) == len(wanted) or timeout <= 0:
            return found
        clock = self._server.clock
        deadline = clock.monotonic() + timeout
        is_over = False
        with self._listening([self._keys.waiters, *map(self._keys.done, wanted)]) as listener:
            while True:
                found |= self._final([task_id for task_id in wanted if task_id not in found])
                if is_over or len(found) == len(wanted):
                    return found
                left = deadline - clock.monotonic()
                is_over = not listener.wait_or_renew(min(left, LOOK_EVERY)) and left <= LOOK_EVERY
                listener.take_heard()

    @contextmanager
    def _listening(self, channels: Sequence[str]) -> Iterator[Listener]:
        """A listener that hears these channels for the time of a block."""
        with self._lock:
            listener = self._spare.pop() if self._spare else self._server.listen()
        try:
            listener.subscribe(channels)
            yield listener
            listener.unsubscribe(channels)
        except BaseException:
            listener.close()
            raise
        with self._lock:
            is_kept = len(self._spare) < SPARE_LISTENERS and not self._is_closed
            if is_kept:
                self._spare.append(listener)
        if not is_kept:
            listener.close()

    def _final(self, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        records = (record for record in read_records(self._server, self._keys, task_ids) if record is not None)
        return {record.id: record for record in records if record.state.is_final}

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        if limit <= 0:
            return RecordPage([])
        items: list[TaskRecord] = []
        to_skip = offset
        for record in self._newest_first(state):
            if queue is not None and record.meta.get("queue") != queue:
                continue
            if to_skip > 0:
                to_skip -= 1
            elif len(items) == limit:
                return RecordPage(items, offset + limit)
            else:
                items.append(record)
        return RecordPage(items)

    def _newest_first(self, state: TaskState | None) -> Iterator[TaskRecord]:
        """By the index; what was written again since has a younger entry there."""
        code = None if state is None else _CODES[state]
        newest = "+"
        yielded: set[str] = set()  # of one millisecond, in which a record may have been written twice
        yielded_of = 0
        while page := self._server.command("XREVRANGE", self._keys.results, newest, "-", "COUNT", 100):
            newest = f"({page[-1][0].decode()}"
            listed: list[tuple[int, str]] = []
            for _, fields in page:
                known = dict(zip(fields[::2], fields[1::2], strict=True))
                if known.get(b"t", b"").isdigit():
                    lines = known.get(b"r", b"").decode(errors="replace").splitlines()
                    ids = {line[1:] for line in lines if code in (None, line[:1])}
                    listed += [(int(known[b"t"]), task_id) for task_id in sorted(ids, reverse=True)]
            for start in range(0, len(listed), MOST_AT_ONCE):
                some = listed[start : start + MOST_AT_ONCE]
                records = read_records(self._server, self._keys, [task_id for _, task_id in some])
                for (written, _), record in zip(some, records, strict=True):
                    if record is None or round(record.updated_at * 1000) != written:
                        continue
                    if written != yielded_of:
                        yielded, yielded_of = set(), written
                    if state in (None, record.state) and record.id not in yielded:
                        yielded.add(record.id)
                        yield record

    def purge_expired(self) -> int:
        count = removed = 0
        dropped = 1
        while dropped and count < PURGE_LIMIT:
            removed, dropped = self._server.run(Script.named("expire"), [self._keys.results], [self._server.given, self._ttl_ms])
            count += removed
        return count

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            spare, self._spare = self._spare, []
        for listener in spare:
            listener.close()
        self._server.detach()


def read_record(server: Server, keys: Keys, task_id: str) -> TaskRecord | None:
    """The record as it stands, unless its time is over."""
    return read_records(server, keys, [task_id])[0]


def read_records(server: Server, keys: Keys, ids: Sequence[str]) -> list[TaskRecord | None]:
    """Those of several tasks, in their order."""
    if not ids:
        return []
    values = server.command("MGET", *map(keys.result, ids))  # unlike GET it does not mind a key of another type
    now = server.now()
    return [_record(task_id, value, now) for task_id, value in zip(ids, values, strict=True)]


def listed(records: Iterable[TaskRecord]) -> str:
    """What the index says of records that are written together: a line each, with state and id."""
    return "".join([f"{_CODES[record.state]}{record.id}\n" for record in records])


def packed_record(record: TaskRecord) -> bytes:
    """A record as the scripts take it: precedence, state, the rest.

    Raises:
        TypeError, ValueError, OverflowError: its meta or error holds what has no stored form.
    """
    _, state, attempt, delivery_count, replay_count, payload, error, retryable, meta, _, _ = record
    rest: bytes = msgpack.packb(
        (
            payload,
            None if error is None else (error.type, error.message, error.stack, error.meta),
            retryable,
            meta,
        ),
        default=plain,
    )
    return _head(replay_count, attempt, delivery_count, state) + rest


@lru_cache(maxsize=256)  # nearly all records of a batch are of first attempts that succeeded
def _head(replay_count: int, attempt: int, delivery_count: int, state: TaskState) -> bytes:
    return f"{replay_count:010}{attempt:010}{delivery_count:010}{_ENDINGS[state]}".encode()


def _record(task_id: str, value: bytes | None, now: float) -> TaskRecord | None:
    """Read a stored record: created, updated and expires in 13 digits each, precedence in 31, state, the rest."""
    if value is None or len(value) < 71:
        return None
    try:
        created_at, updated_at, expires_at = (int(value[at : at + 13]) / 1000 for at in (0, 13, 26))
        if expires_at <= now:
            return None
        payload, error, retryable, meta = msgpack.unpackb(value[71:], strict_map_key=False)
        return TaskRecord(
            task_id,
            _STATES[value[70:71]],
            int(value[49:59]),
            int(value[59:69]),
            int(value[39:49]),
            payload,
            None if error is None else ErrorInfo(*error),
            retryable,
            meta,
            created_at,
            updated_at,
        )
    except (ValueError, TypeError, KeyError):
        return None  # somebody else's bytes
