"""The observer: reads the records of all tasks that were asked for, while the run goes on and once more at its end.

What it sees of a task goes into the history twice, when it first reads a final state and after everything has come to rest: a
final state that was overwritten in between shows as two different ones.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stem_actors import Stem
from stem_actors.codecs.msgpack import decode_payload
from stem_actors.config import Settings
from stem_actors.errors import StemError
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.ports import ResultBackend
from stem_chaos.client import ChaosClient
from stem_chaos.history import Recorder, Verb

__all__ = ["Observer"]

_AT_ONCE = 500
_LOOK = 0.5  # seconds that one wait for results lasts at most
_EMPTY_FOR = 5.0  # seconds after which a broker that holds nothing is taken to have nothing more to come
_AWAY = 0.2  # seconds before a store that is away is asked again
_PAGE = 200


class Observer:
    """Waits for the tasks of `client`. `start` once, then `finish`; `ended` counts those seen in a final state."""

    def __init__(self, settings: Settings, client: ChaosClient, recorder: Recorder) -> None:
        self._app = Stem(settings=settings)
        self._client = client
        self._recorder = recorder
        self._outstanding: dict[str, None] = {}
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="chaos-observer", daemon=True)
        self.ended = 0

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._is_stopped.set()
        if self._thread.is_alive():
            self._thread.join(_LOOK + 30.0)

    def close(self) -> None:
        self.stop()
        self._app.close()

    def await_quiet(self, patience: float, tick: Callable[[], None]) -> bool:
        """Wait until every accepted task has ended and the broker holds nothing more; False when that took too long.

        A broker that has held nothing for a while is waited for no longer: what has not ended then never will.
        `tick` is called about twice a second. The client makes no more calls by now; the observer must be started.
        """
        now = time.monotonic()
        deadline, empty_since = now + patience, float("inf")
        while now < deadline:
            tick()
            has_all = not self._outstanding and not self._client.has_fresh
            empty_since = min(empty_since, now) if self._is_empty() else float("inf")
            if now - empty_since > (0.0 if has_all else _EMPTY_FOR):
                return has_all
            self._is_stopped.wait(_LOOK)
            now = time.monotonic()
        return False

    def _is_empty(self) -> bool:
        try:
            depths = self._app.stores.broker.depths()
        except StemError:
            return False
        return not any(each.pending or each.inflight or each.delayed for each in depths)

    # ------------------------------------------------------------ while it runs

    def _watch(self) -> None:
        while not self._is_stopped.is_set():
            self._outstanding.update(dict.fromkeys(self._client.take_fresh()))
            some = list(itertools.islice(self._outstanding, _AT_ONCE))
            if not some:
                self._is_stopped.wait(_LOOK)
                continue
            try:
                found = self._results.wait(some, _LOOK)
            except StemError:
                self._is_stopped.wait(_AWAY)
                continue
            for task_id in some:
                del self._outstanding[task_id]
                if task_id in found:
                    self.ended += 1
                    self._write(found[task_id], when="seen")
                else:
                    self._outstanding[task_id] = None  # behind the others, which are looked at first

    # ------------------------------------------------------------ at the end

    def finish(self, queues: Iterable[str]) -> None:
        """Read every task's record, and all dead letters, once more."""
        dead = {task_id: reason for queue in queues for task_id, reason in self._dead_letters(queue)}
        known = sorted(self._client.accepted | self._client.unknown)
        for start in range(0, len(known), _AT_ONCE):
            some = known[start : start + _AT_ONCE]
            found = self._results.wait(some, 0.0)
            for task_id in some:
                record = found.get(task_id) or self._results.get(task_id)
                if record is not None:
                    self._write(record, when="end", dead_letter=dead.pop(task_id, None))
                elif task_id in self._client.accepted or task_id in dead:
                    self._write(TaskRecord(task_id, TaskState.QUEUED), when="end", dead_letter=dead.pop(task_id, None))
                else:
                    self._recorder.happened(Verb.OBSERVE, task_id=task_id, when="end", state="absent")
        for task_id, reason in dead.items():  # of tasks that others enqueued
            self._recorder.happened(Verb.OBSERVE, task_id=task_id, when="end", state="failed", dead_letter=reason)

    def _dead_letters(self, queue: str) -> Iterator[tuple[str, str]]:
        offset: int | None = 0
        while offset is not None:
            page = self._app.stores.broker.dead_letters(queue, _PAGE, offset)
            yield from ((each.id, each.reason) for each in page.entries)
            offset = page.next_offset

    @property
    def _results(self) -> ResultBackend:
        results = self._app.stores.results
        assert results is not None
        return results

    def _write(self, record: TaskRecord, **more: Any) -> None:
        detail: Mapping[str, Any] = {
            "state": record.state.value,
            "result": _readable(record.payload),
            "error": None if record.error is None else f"{record.error.type}: {record.error.message}",
            "reason": record.meta.get("deadLetter"),
            "replay_count": record.replay_count,
            **more,
        }
        told = {key: value for key, value in detail.items() if value is not None}
        self._recorder.happened(
            Verb.OBSERVE, task_id=record.id, attempt=record.attempt, delivery_count=record.delivery_count, **told
        )


def _readable(payload: bytes | None) -> Any:
    if payload is None:
        return None
    try:
        return decode_payload(payload)
    except StemError:
        return repr(payload)  # a type of the application's own
