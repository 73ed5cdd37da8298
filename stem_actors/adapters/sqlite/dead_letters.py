"""The dead letters of a SQLite broker: list, replay, purge."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgpack

from stem_actors.adapters.sqlite import moves
from stem_actors.adapters.sqlite.connection import Database, Row
from stem_actors.adapters.sqlite.results import packed_record, read_record, write_records
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.delivery import pack_state
from stem_actors.model.lapse import readable, replay_record
from stem_actors.ports import DeadLetterPage, DeadTask

__all__ = ["DeadLetters"]

_TASK = "id, body, state, reason, meta, dead_at"
_SELECTED = """
    queue = (SELECT id FROM queue WHERE namespace = :namespace AND name = :queue)
    AND (:since IS NULL OR dead_at >= :since) AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
"""


class DeadLetters:
    """Those of one namespace. `result_ttl` None: this broker keeps no records."""

    def __init__(self, database: Database, namespace: int, result_ttl: float | None) -> None:
        self._database = database
        self._namespace = namespace
        self._result_ttl = result_ttl

    def page(self, queue: str, limit: int, offset: int, since: float | None) -> DeadLetterPage:
        if limit <= 0:
            return DeadLetterPage([])
        rows = self._database.read(
            f"SELECT {_TASK} FROM dead WHERE {_SELECTED} ORDER BY dead_at DESC, number DESC LIMIT :limit OFFSET :offset",
            self._selection(queue, since, None, limit + 1) | {"offset": max(0, offset)},
        )
        entries = [_dead_task(queue, row) for row in rows[:limit]]
        return DeadLetterPage(entries, max(0, offset) + limit if len(rows) > limit else None)

    def find(self, queue: str, task_id: str) -> DeadTask | None:
        rows = self._database.read(
            f"SELECT {_TASK} FROM dead WHERE {_SELECTED} ORDER BY dead_at DESC, number DESC LIMIT :limit",
            self._selection(queue, None, [task_id], 1),
        )
        return _dead_task(queue, rows[0]) if rows else None

    def replay(
        self, queue: str, limit: int, since: float | None, ids: Sequence[str] | None, delay: float, dry_run: bool
    ) -> list[DeadTask]:
        selection = self._selection(queue, since, ids, max(0, limit))
        query = (
            f"SELECT {_TASK}, number, queue, level, is_named, visibility, sig FROM dead "
            f"WHERE {_SELECTED} ORDER BY dead_at, number LIMIT :limit"
        )
        if dry_run:
            return [_dead_task(queue, row[:6]) for row in self._database.read(query, selection)]
        with self._database.write() as connection:
            now = self._database.clock.now()
            rows = connection.execute(query, selection).fetchall()
            _delete(connection, [row[6] for row in rows])
            messages = [self._revived(connection, queue, row, delay, now) for row in rows]
            if rows:
                connection.execute("UPDATE queue SET replayed = replayed + ? WHERE id = ?", (len(rows), rows[0][7]))
            if delay > 0:
                moves.add_delayed(connection, self._namespace, [(now + delay, message) for message in messages])
            else:
                moves.add_last(connection, messages)
        return [_dead_task(queue, row[:6]) for row in rows]

    def _revived(self, connection: sqlite3.Connection, queue: str, row: Row, delay: float, now: float) -> moves.Moving:
        """The message as it is queued again; its record and its name follow it."""
        task_id, body, raw, reason, _, _, _, queue_id, level, is_named, visibility, sig = row
        if is_named & 1:
            connection.execute("INSERT OR REPLACE INTO named VALUES (?, ?, NULL)", (self._namespace, task_id))
        state = readable(raw)
        if state is not None:
            state = state.replayed(now)
            if self._result_ttl is not None:
                before = read_record(connection, self._namespace, task_id, now)
                record = replay_record(task_id, queue, state, reason, delay, before)
                write_records(connection, self._namespace, [packed_record(record)], now, self._result_ttl)
            raw = pack_state(state)
        return moves.Moving(queue_id, level, task_id, is_named, visibility, now, raw, sig, body)

    def purge(self, queue: str, limit: int | None, since: float | None, ids: Sequence[str] | None) -> int:
        selection = self._selection(queue, since, ids, -1 if limit is None else max(0, limit))
        with self._database.write() as connection:
            rows = connection.execute(
                f"SELECT number FROM dead WHERE {_SELECTED} ORDER BY dead_at DESC, number DESC LIMIT :limit", selection
            ).fetchall()
            _delete(connection, [number for (number,) in rows])
        return len(rows)

    def _selection(self, queue: str, since: float | None, ids: Sequence[str] | None, limit: int) -> dict[str, Any]:
        return {
            "namespace": self._namespace,
            "queue": queue,
            "since": since,
            "ids": None if ids is None else as_set(ids),
            "limit": limit,
        }


def _delete(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    connection.execute(f"DELETE FROM dead WHERE number IN {MANY}", (as_set(numbers),))


def _dead_task(queue: str, row: Row) -> DeadTask:
    task_id, body, state, reason, meta, dead_at = row
    return DeadTask(task_id, queue, body, readable(state), reason, msgpack.unpackb(meta, strict_map_key=False), dead_at)
