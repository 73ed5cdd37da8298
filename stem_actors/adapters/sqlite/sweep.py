"""The sweep in SQLite: what is due is promoted, lapsed leases come back, and what has had its time is dropped."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from stem_actors.adapters.sqlite import moves
from stem_actors.adapters.sqlite.connection import Database, Row
from stem_actors.adapters.sqlite.results import packed_record, read_record, write_records
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.lapse import (
    NAME_KEPT,
    POISON,
    SENDER_KEPT,
    Poisoned,
    Retention,
    Returned,
    Watch,
    after_lapse,
    counted,
    poison_record,
    repacked,
    swept,
)
from stem_actors.ports import Swept

__all__ = ["Sweeper"]

TAKE_LIMIT = 1000  # leases or dead letters, a sweep
PRUNE_INTERVAL = 30.0  # for what nobody waits for


class Sweeper:
    """Sweeps one namespace. Any thread; what two processes do at once, one of them skips."""

    def __init__(self, database: Database, namespace: int, retention: Retention) -> None:
        self._database = database
        self._namespace = namespace
        self._retention = retention
        self._pruned_at: float | None = None

    def sweep(self) -> Swept:
        now = self._database.clock.now()
        done = None
        if swept(_watch(self._database.read(*self._last_sweep)), now) is not None:
            candidates = self._lapsed(now)
            with self._database.write(durable=False) as connection:
                done = self._sweep(connection, candidates)
            self._database.shorten_log()
        return replace(done or Swept(skipped=True), next_due=self._next_due())

    def _sweep(self, connection: sqlite3.Connection, candidates: list[int]) -> Swept | None:
        """None: another process has swept meanwhile."""
        now = self._database.clock.now()
        watch = swept(_watch(connection.execute(*self._last_sweep).fetchall()), now)
        if watch is None:
            return None
        connection.execute("UPDATE namespace SET last_sweep = ?, swept_since = ? WHERE id = ?", (*watch, self._namespace))
        promoted = moves.promote(connection, self._namespace, now)
        reclaimed, poisoned = self._take(connection, candidates, watch)
        expired = self._drop_dead_letters(connection, now)
        self._prune(connection, now)
        return Swept(promoted, reclaimed, poisoned, expired, replayed=self._replayed(connection))

    @property
    def _last_sweep(self) -> tuple[str, tuple[int]]:
        return "SELECT last_sweep, swept_since FROM namespace WHERE id = ?", (self._namespace,)

    def _next_due(self) -> float | None:
        ((due,),) = self._database.read("SELECT min(due) FROM delayed WHERE namespace = ?", (self._namespace,))
        return None if due is None else max(0.0, due - self._database.clock.now())

    # ------------------------------------------------------------ leases

    def _lapsed(self, now: float) -> list[int]:
        """A scan of all leases, so made before the write lock is taken."""
        rows = self._database.read(
            "SELECT token FROM leased WHERE ends <= ? AND queue IN (SELECT id FROM queue WHERE namespace = ?) "
            "ORDER BY token LIMIT ?",
            (now, self._namespace, TAKE_LIMIT),
        )
        return [token for (token,) in rows]

    def _take(self, connection: sqlite3.Connection, candidates: list[int], watch: Watch) -> tuple[int, int]:
        """Give back the lapsed leases that patience allows to take; how many went back, and how many were poison."""
        if not candidates:
            return 0, 0
        rows = connection.execute(
            f"SELECT token, ends, coalesce(visibility, ?), is_started FROM leased WHERE token IN {MANY}",
            (self._retention.visibility_timeout, as_set(candidates)),
        ).fetchall()
        is_started: dict[int | str, bool] = {
            token: bool(mark) for token, ends, visibility, mark in rows if watch.may_take(visibility, ends)
        }
        returned, poisoned = [], []
        for token, message in moves.take_leased(connection, as_set(is_started)).items():
            match after_lapse(counted(message.state), is_started[token], self._retention.max_deaths):
                case Returned(state):
                    returned.append(message._replace(state=repacked(state, message.state)))
                case Poisoned(state) as poison:
                    poisoned.append((message._replace(state=repacked(state, message.state)), POISON, poison.meta))
                    self._record_poison(connection, message, poison, watch.last)
        moves.add_first(connection, returned)
        moves.add_dead(connection, self._namespace, poisoned, watch.last)
        return len(returned), len(poisoned)

    def _record_poison(self, connection: sqlite3.Connection, message: moves.Moving, poison: Poisoned, now: float) -> None:
        ttl = self._retention.result_ttl
        if ttl is not None:
            (queue,) = connection.execute("SELECT name FROM queue WHERE id = ?", (message.queue,)).fetchone()
            before = read_record(connection, self._namespace, message.id, now)
            record = poison_record(message.id, queue, poison, before)
            write_records(connection, self._namespace, [packed_record(record)], now, ttl)

    # ------------------------------------------------------------ forgetting

    def _drop_dead_letters(self, connection: sqlite3.Connection, now: float) -> int:
        return connection.execute(
            "DELETE FROM dead WHERE number IN (SELECT number FROM dead "
            "WHERE queue IN (SELECT id FROM queue WHERE namespace = ?) AND dead_at <= ? LIMIT ?)",
            (self._namespace, now - self._retention.dead_letter_ttl, TAKE_LIMIT),
        ).rowcount

    def _replayed(self, connection: sqlite3.Connection) -> dict[str, int]:
        of_ours = "queue WHERE namespace = ? AND replayed > 0"
        counts = dict(connection.execute(f"SELECT name, replayed FROM {of_ours}", (self._namespace,)).fetchall())
        if counts:
            connection.execute("UPDATE queue SET replayed = 0 WHERE namespace = ? AND replayed > 0", (self._namespace,))
        return counts

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        if self._pruned_at is not None and 0 <= now - self._pruned_at < PRUNE_INTERVAL:
            return
        self._pruned_at = now
        for table, column, limit in (
            ("sender", "at", now - SENDER_KEPT),
            ("named", "ended_at", now - NAME_KEPT),
            ("control", "expires_at", now),
            ("lock", "expires_at", now),
            ("heartbeat", "expires_at", now),
        ):
            connection.execute(f"DELETE FROM {table} WHERE namespace = ? AND {column} <= ?", (self._namespace, limit))


def _watch(rows: list[Row]) -> Watch | None:
    ((last, since),) = rows
    return None if last is None else Watch(last, since)
