"""Task records in SQLite. The broker beside it writes its records with `write_records`, in its own transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from stem_actors.adapters.record_rows import FINALITY, STATE_TEXT, packed_facts, record_of
from stem_actors.adapters.sqlite.connection import Database, Insertion, Row
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.adapters.sqlite.wakeup import topic
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.ports import RecordPage

__all__ = ["SqliteResults", "packed_record", "read_record", "topic_of", "write_records"]

PURGE_LIMIT = 5000  # a call

_COLUMNS = "id, state, attempt, delivery_count, replay_count, payload, facts, created_at, updated_at"

# A record gives way to one of at least its precedence, and to any once its time is over.
_UPSERT = Insertion(
    "result",
    "id, state, queue, replay_count, attempt, delivery_count, finality, facts, payload",
    """
    ON CONFLICT (namespace, id) DO UPDATE SET
        state = excluded.state, queue = excluded.queue, replay_count = excluded.replay_count, attempt = excluded.attempt,
        delivery_count = excluded.delivery_count, finality = excluded.finality, facts = excluded.facts,
        payload = excluded.payload, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        created_at = CASE WHEN result.expires_at <= excluded.updated_at THEN excluded.created_at ELSE result.created_at END
    WHERE (excluded.replay_count, excluded.attempt, excluded.delivery_count, excluded.finality)
       >= (result.replay_count, result.attempt, result.delivery_count, result.finality)
       OR result.expires_at <= excluded.updated_at
    """,
    shared="namespace, created_at, updated_at, expires_at",
)


class SqliteResults:
    """A `ResultBackend`. Any thread."""

    def __init__(self, database: Database, namespace: str, ttl: float) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._ttl = ttl
        self._topic = topic_of(namespace)
        self._is_closed = False

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        if not records:
            return []
        rows = [packed_record(record) for record in records]
        namespace = self._database.namespace_id(self._namespace)
        has_final = any(record.state.is_final for record in records)
        with self._database.write(durable=has_final) as connection:
            now = self._database.clock.now()
            stored = []
            for row in rows:
                before = connection.total_changes
                write_records(connection, namespace, [row], now, self._ttl)
                stored.append(connection.total_changes > before)
        if has_final:
            self._database.wakeup.notify(self._topic)
        return stored

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        namespace = self._database.namespace_id(self._namespace)
        found: list[TaskRecord | None] = []
        with self._database.write() as connection:
            now = self._database.clock.now()
            for record in records:
                standing = read_record(connection, namespace, record.id, now)
                ended = standing if standing is not None and standing.ends_attempt_of(record) else None
                if ended is None:
                    write_records(connection, namespace, [packed_record(record)], now, self._ttl)
                found.append(ended)
        return found

    def get(self, task_id: str) -> TaskRecord | None:
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM result WHERE namespace = ? AND id = ? AND expires_at > ?",
            (self._database.namespace_id(self._namespace), task_id, self._database.clock.now()),
        )
        return record_of(rows[0]) if rows else None

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        found = self._final(task_ids)
        if len(found) == len(set(task_ids)) or timeout <= 0:
            return found
        clock = self._database.clock
        deadline = clock.monotonic() + timeout
        with self._database.wakeup.listening(self._topic) as inbox:
            is_over = False
            while True:
                inbox.drain()
                found |= self._final([task_id for task_id in task_ids if task_id not in found])
                if is_over or len(found) == len(set(task_ids)):
                    return found
                is_over = not inbox.wait(deadline - clock.monotonic())

    def _final(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM result WHERE namespace = ? AND id IN {MANY} AND finality = ? AND expires_at > ?",
            (
                self._database.namespace_id(self._namespace),
                as_set(task_ids),
                TaskState.SUCCEEDED.finality,
                self._database.clock.now(),
            ),
        )
        return {row[0]: record_of(row) for row in rows}

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        if limit <= 0:
            return RecordPage([])
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM result WHERE namespace = :namespace AND expires_at > :now "
            "AND (:state IS NULL OR state = :state) AND (:queue IS NULL OR queue = :queue) "
            "ORDER BY updated_at DESC, id DESC LIMIT :limit OFFSET :offset",
            {
                "namespace": self._database.namespace_id(self._namespace),
                "now": self._database.clock.now(),
                "state": None if state is None else state.value,
                "queue": queue,
                "limit": limit + 1,
                "offset": offset,
            },
        )
        items = [record_of(row) for row in rows[:limit]]
        return RecordPage(items, offset + limit if len(rows) > limit else None)

    def purge_expired(self) -> int:
        # By the index on updated_at: what this process would keep is not looked at.
        namespace, now = self._database.namespace_id(self._namespace), self._database.clock.now()
        with self._database.write(durable=False) as connection:
            return connection.execute(
                "DELETE FROM result WHERE namespace = :namespace AND id IN (SELECT id FROM result WHERE namespace = :namespace "
                "AND updated_at <= :written AND expires_at <= :now ORDER BY updated_at LIMIT :limit)",
                {"namespace": namespace, "written": now - self._ttl, "now": now, "limit": PURGE_LIMIT},
            ).rowcount

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()


def topic_of(namespace: str) -> str:
    """What waiters for results listen to."""
    return topic("results", namespace)


def write_records(connection: sqlite3.Connection, namespace: int, rows: Sequence[Row], now: float, ttl: float) -> None:
    """Store what `packed_record` made, each where nothing of higher precedence stands. Inside the caller's transaction."""
    _UPSERT.run(connection, rows, shared=(namespace, now, now, now + ttl))


def read_record(connection: sqlite3.Connection, namespace: int, task_id: str, now: float) -> TaskRecord | None:
    """As `get`, inside a transaction."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM result WHERE namespace = ? AND id = ? AND expires_at > ?", (namespace, task_id, now)
    ).fetchone()
    return None if row is None else record_of(row)


def packed_record(record: TaskRecord) -> Row:
    """The columns that come from the record itself.

    Raises:
        TypeError, ValueError, OverflowError: its meta or error holds what has no stored form.
    """
    task_id, state, attempt, delivery_count, replay_count, payload, _, _, meta, _, _ = record
    return (
        task_id,
        STATE_TEXT[state],
        meta.get("queue"),
        replay_count,
        attempt,
        delivery_count,
        FINALITY[state],
        packed_facts(record),
        payload,
    )
