"""The dead letters of a Postgres broker: list, replay, purge."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from stem_actors.adapters.postgres.connection import Database, Parameters, Row, Transaction
from stem_actors.adapters.postgres.results import read_record, write_record
from stem_actors.model.delivery import pack_state
from stem_actors.model.lapse import readable, replay_record
from stem_actors.ports import DeadLetterPage, DeadTask

__all__ = ["DeadLetters"]

_TASK = "id, body, state, reason, meta, dead_at"
_SELECTED = """
    queue = %(queue)s AND (%(since)s::float8 IS NULL OR dead_at >= %(since)s) AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s))
"""
_PAGE = f"SELECT {_TASK} FROM @dead WHERE {_SELECTED} ORDER BY dead_at DESC, number DESC LIMIT %(limit)s OFFSET %(offset)s"
_OLDEST = f"SELECT {_TASK}, number, sig, marks FROM @dead WHERE {_SELECTED} ORDER BY dead_at, number LIMIT %(limit)s"
_REVIVE = """
    WITH gone AS (DELETE FROM @dead WHERE number = %(number)s RETURNING *),
    name AS (
        INSERT INTO @named (namespace, id) SELECT namespace, id FROM gone WHERE marks & 1 <> 0
        ON CONFLICT (namespace, id) DO UPDATE SET ended_at = NULL
    ),
    last AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, nextval('@number'), id, marks, visibility, @now, %(state)s::bytea, sig, body
        FROM gone WHERE %(delay)s::float8 <= 0
    )
    INSERT INTO @delayed (namespace, due, number, queue, level, id, marks, visibility, state, sig, body)
    SELECT
        namespace, @now + %(delay)s::float8, nextval('@number'), queue, level, id, marks, visibility, %(state)s::bytea, sig, body
    FROM gone WHERE %(delay)s::float8 > 0
"""
_COUNT_REPLAYED = "UPDATE @queue SET replayed = replayed + %(count)s WHERE id = %(queue)s"
_PURGE = f"""
    WITH gone AS (
        DELETE FROM @dead WHERE number = ANY (ARRAY (
            SELECT number FROM @dead WHERE {_SELECTED} ORDER BY dead_at DESC, number DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    )
    SELECT count(*) FROM gone
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
        rows = self._database.read(_PAGE, {**self._selection(queue, since, None, limit + 1), "offset": max(0, offset)})
        entries = [_dead_task(queue, row) for row in rows[:limit]]
        return DeadLetterPage(entries, max(0, offset) + limit if len(rows) > limit else None)

    def find(self, queue: str, task_id: str) -> DeadTask | None:
        rows = self._database.read(_PAGE, {**self._selection(queue, None, [task_id], 1), "offset": 0})
        return _dead_task(queue, rows[0]) if rows else None

    def replay(
        self, queue: str, limit: int, since: float | None, ids: Sequence[str] | None, delay: float, dry_run: bool
    ) -> list[DeadTask]:
        selection = self._selection(queue, since, ids, max(0, limit))
        if dry_run:
            return [_dead_task(queue, row[:6]) for row in self._database.read(_OLDEST, selection)]

        def replay_all(transaction: Transaction) -> list[DeadTask]:
            rows = transaction.run(f"{_OLDEST} FOR UPDATE SKIP LOCKED", selection)
            for row in rows:
                self._revive(transaction, queue, row, delay)
            if rows:
                transaction.run(_COUNT_REPLAYED, {"queue": selection["queue"], "count": len(rows)})
            return [_dead_task(queue, row[:6]) for row in rows]

        return self._database.transact(replay_all)

    def _revive(self, transaction: Transaction, queue: str, row: Row, delay: float) -> None:
        """Queue the message again; its record and its name follow it."""
        task_id, _, raw, reason, _, _, number, _, _ = row
        state = readable(raw)
        if state is not None:
            ((now,),) = transaction.run("SELECT @now")
            state = state.replayed(now)
            if self._result_ttl is not None:
                before = read_record(transaction, self._namespace, task_id)
                record = replay_record(task_id, queue, state, reason, delay, before)
                write_record(transaction, self._namespace, self._result_ttl, record)
            raw = pack_state(state)
        transaction.run(_REVIVE, {"number": number, "state": raw, "delay": delay})

    def purge(self, queue: str, limit: int | None, since: float | None, ids: Sequence[str] | None) -> int:
        ((count,),) = self._database.run(_PURGE, self._selection(queue, since, ids, None if limit is None else max(0, limit)))
        return int(count)

    def _selection(self, queue: str, since: float | None, ids: Sequence[str] | None, limit: int | None) -> Parameters:
        return {
            "queue": self._database.queue_id(self._namespace, queue),
            "since": since,
            "ids": None if ids is None else list(ids),
            "limit": limit,
        }


def _dead_task(queue: str, row: Row) -> DeadTask:
    task_id, body, state, reason, meta, dead_at = row
    return DeadTask(task_id, queue, body, readable(state), reason, msgpack.unpackb(meta, strict_map_key=False), dead_at)
