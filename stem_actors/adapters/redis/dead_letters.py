"""The dead letters of a Redis broker: list, replay, purge. A sorted set by time of death, and a hash with what died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.entries import read_entry
from stem_actors.adapters.redis.keys import Keys
from stem_actors.adapters.redis.results import packed_record, read_records
from stem_actors.model.delivery import pack_state
from stem_actors.model.lapse import replay_record
from stem_actors.ports import DeadLetterPage, DeadTask

__all__ = ["DeadLetters"]

MOST_AT_ONCE = 300

_Member = tuple[bytes, float]


class DeadLetters:
    """Those of one namespace. `ttl_ms` 0: this broker keeps no records."""

    def __init__(self, server: Server, keys: Keys, ttl_ms: int) -> None:
        self._server = server
        self._keys = keys
        self._ttl_ms = ttl_ms

    def page(self, queue: str, limit: int, offset: int, since: float | None) -> DeadLetterPage:
        if limit <= 0:
            return DeadLetterPage([])
        offset = max(0, offset)
        members: list[_Member] = []
        for place, member in enumerate(self._members(queue, since, None, newest_first=True)):
            if place == offset + limit:
                return DeadLetterPage(self._tasks(queue, members), offset + limit)
            if place >= offset:
                members.append(member)
        return DeadLetterPage(self._tasks(queue, members))

    def find(self, queue: str, task_id: str) -> DeadTask | None:
        for member in self._members(queue, None, [task_id], newest_first=True):
            return next(iter(self._tasks(queue, [member])), None)
        return None

    def replay(
        self, queue: str, limit: int, since: float | None, ids: Sequence[str] | None, delay: float, dry_run: bool
    ) -> list[DeadTask]:
        chosen = self._first(self._members(queue, since, ids, newest_first=False), max(0, limit))
        if dry_run:
            return self._tasks(queue, chosen)
        replayed: list[DeadTask] = []
        for start in range(0, len(chosen), MOST_AT_ONCE):
            replayed += self._replay(queue, chosen[start : start + MOST_AT_ONCE], delay)
        return replayed

    def _replay(self, queue: str, members: Sequence[_Member], delay: float) -> list[DeadTask]:
        now = self._server.now()
        keys = [self._keys.meta(queue), self._keys.names, self._keys.results]
        arguments: list[Any] = [self._server.given, round(delay * 1000) if delay > 0 else 0, self._ttl_ms]
        pairs = list(self._pairs(queue, members))
        ids = [task.id for _, task in pairs]
        records = read_records(self._server, self._keys, ids) if self._ttl_ms else [None] * len(pairs)
        tasks = []
        for (member, task), before in zip(pairs, records, strict=True):
            state, record = b"", b""
            if task.state is not None:
                after = task.state.replayed(now)
                state = pack_state(after)
                if self._ttl_ms:
                    record = packed_record(replay_record(task.id, queue, after, task.reason, delay, before))
                    keys.append(self._keys.result(task.id))
            arguments += (member[0], state, record)
            tasks.append(task)
        self._server.command("SADD", self._keys.queues, queue)
        answers = self._server.run(Script.named("replay"), keys, arguments)
        return [task for task, is_replayed in zip(tasks, answers, strict=True) if is_replayed]

    def purge(self, queue: str, limit: int | None, since: float | None, ids: Sequence[str] | None) -> int:
        members = self._members(queue, since, ids, newest_first=True)
        chosen = list(members) if limit is None else self._first(members, max(0, limit))
        removed = 0
        for start in range(0, len(chosen), MOST_AT_ONCE):
            names = [name for name, _ in chosen[start : start + MOST_AT_ONCE]]
            removed += self._server.run(Script.named("bury_for_good"), [self._keys.meta(queue)], names)
        return removed

    # ------------------------------------------------------------ reading

    def _dead(self, queue: str) -> tuple[str, str]:
        prefix = self._keys.queue(queue)
        return f"{prefix}dead", f"{prefix}dead:tasks"

    def _members(self, queue: str, since: float | None, ids: Sequence[str] | None, newest_first: bool) -> Iterator[_Member]:
        """Those selected, without their bodies. A member is a serial number, a colon and the task's id."""
        dead, _ = self._dead(queue)
        lowest = "-inf" if since is None else round(since * 1000)
        wanted = None if ids is None else {task_id.encode() for task_id in ids}
        start = 0
        while True:
            bounds = ("ZREVRANGEBYSCORE", dead, "+inf", lowest) if newest_first else ("ZRANGEBYSCORE", dead, lowest, "+inf")
            flat = self._server.command(*bounds, "WITHSCORES", "LIMIT", start, 1000)
            for name, score in zip(flat[::2], flat[1::2], strict=True):
                if wanted is None or name.partition(b":")[2] in wanted:
                    yield name, float(score) / 1000
            if len(flat) < 2000:
                return
            start += 1000

    def _first(self, members: Iterator[_Member], limit: int) -> list[_Member]:
        return [member for _, member in zip(range(limit), members, strict=False)]

    def _tasks(self, queue: str, members: Sequence[_Member]) -> list[DeadTask]:
        return [task for _, task in self._pairs(queue, members)]

    def _pairs(self, queue: str, members: Sequence[_Member]) -> Iterator[tuple[_Member, DeadTask]]:
        _, tasks = self._dead(queue)
        for start in range(0, len(members), MOST_AT_ONCE):
            some = members[start : start + MOST_AT_ONCE]
            values = self._server.command("HMGET", tasks, *(name for name, _ in some))
            for member, value in zip(some, values, strict=True):
                if value is not None:
                    yield member, _dead_task(queue, member, value)


def _dead_task(queue: str, member: _Member, value: bytes) -> DeadTask:
    name, dead_at = member
    try:
        reason, meta, _, fields = msgpack.unpackb(value, raw=True)
        entry = read_entry(fields, name.decode(errors="replace"))
        facts = msgpack.unpackb(meta, strict_map_key=False) if meta else {}
        return DeadTask(entry.id, queue, entry.body, entry.counted_state(0), reason.decode(), facts, dead_at)
    except (ValueError, TypeError, AttributeError):
        return DeadTask(name.decode(errors="replace"), queue, value, None, "unreadable", {}, dead_at)
