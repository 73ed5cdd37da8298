"""Task records in memory. The broker beside it writes its records with `store_record`, under the same lock."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.memory.space import Space
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.ports import RecordPage

__all__ = ["MemoryResults", "current_record", "store_record"]


class MemoryResults:
    """A `ResultBackend`. Any thread."""

    def __init__(self, space: Space, ttl: float) -> None:
        self._space = space
        self._ttl = ttl

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        with self._space.changed:
            now = self._space.clock.now()
            stored = [store_record(self._space, record, now, self._ttl) for record in records]
            self._space.changed.notify_all()
        return stored

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        found: list[TaskRecord | None] = []
        with self._space.changed:
            now = self._space.clock.now()
            for record in records:
                standing = current_record(self._space, record.id, now)
                ended = standing if standing is not None and standing.ends_attempt_of(record) else None
                if ended is None:
                    store_record(self._space, record, now, self._ttl)
                found.append(ended)
        return found

    def get(self, task_id: str) -> TaskRecord | None:
        with self._space.changed:
            return current_record(self._space, task_id, self._space.clock.now())

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        with self._space.changed:
            self._space.wait_for(lambda: len(self._final(task_ids)) == len(set(task_ids)), timeout)
            return self._final(task_ids)

    def _final(self, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        now = self._space.clock.now()
        records = {task_id: current_record(self._space, task_id, now) for task_id in task_ids}
        return {task_id: record for task_id, record in records.items() if record is not None and record.state.is_final}

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        limit, end = max(0, limit), offset + max(0, limit)
        with self._space.changed:
            now = self._space.clock.now()
            matching = [
                record
                for record, expires_at in self._space.records.values()
                if expires_at > now and state in (None, record.state) and queue in (None, record.meta.get("queue"))
            ]
        matching.sort(key=lambda record: (record.updated_at, record.id), reverse=True)
        return RecordPage(matching[offset:end], end if limit and end < len(matching) else None)

    def purge_expired(self) -> int:
        with self._space.changed:
            now = self._space.clock.now()
            expired = [task_id for task_id, (_, expires_at) in self._space.records.items() if expires_at <= now]
            for task_id in expired:
                del self._space.records[task_id]
        return len(expired)

    def close(self) -> None:
        """Nothing to close."""


def current_record(space: Space, task_id: str, now: float) -> TaskRecord | None:
    """The record, unless its time is over."""
    record, expires_at = space.records.get(task_id, (None, 0.0))
    return record if expires_at > now else None


def store_record(space: Space, record: TaskRecord, now: float, ttl: float) -> bool:
    """Store it, unless one of higher precedence stands."""
    before = current_record(space, record.id, now)
    if before is not None and before.precedence > record.precedence:
        return False
    created_at = now if before is None else before.created_at
    space.records[record.id] = (record._replace(created_at=created_at, updated_at=now), now + ttl)
    return True
