"""`Intake` in SQLite: claims messages by moving them from `ready` to `leased`, and sleeps on a socket while there are none."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from operator import itemgetter

from stem_actors.adapters.sqlite import moves
from stem_actors.adapters.sqlite.connection import Database
from stem_actors.adapters.sqlite.wakeup import topic
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.lapse import LOWEST_FIRST_EVERY, counted

__all__ = ["SqliteIntake"]

_COLUMNS = "queue, level, rank, id, is_named, visibility, since, state, sig, body"
_LEASE = f"""
    INSERT INTO leased (holder, ends, is_started, {_COLUMNS})
    SELECT :holder, :now + coalesce(visibility, :visibility), 0, {_COLUMNS} FROM ready
    WHERE queue = :queue ORDER BY level, rank LIMIT :limit
"""
_LEASE_LOWEST = f"""
    INSERT INTO leased (holder, ends, is_started, {_COLUMNS})
    SELECT :holder, :now + coalesce(visibility, :visibility), 0, {_COLUMNS} FROM ready
    WHERE queue = :queue AND level = (SELECT max(level) FROM ready WHERE queue = :queue) ORDER BY rank LIMIT :limit
"""
_LEAVE_READY = "DELETE FROM ready WHERE (queue, level, rank) IN (SELECT queue, level, rank FROM leased WHERE token >= ?)"
_HAND_OUT = "SELECT token, queue, level, id, visibility, state, sig, body FROM leased WHERE token BETWEEN ? AND ? ORDER BY token"


class SqliteIntake:
    """Receives from some queues for one holder. `receive` is for one thread, `interrupt` for any.

    Of several queues that hold work each gets an equal share of a fetch, in an order that rotates from fetch to fetch; what
    one cannot use goes to the others. Priority holds inside a queue, and orders what one fetch returns.
    """

    def __init__(self, database: Database, namespace: str, queues: Sequence[str], holder: str, visibility: float) -> None:
        self._database = database
        self._holder = holder
        self._visibility = visibility
        self._namespace = database.namespace_id(namespace)
        self._names = {database.queue_id(self._namespace, name): name for name in queues}
        self._queues = list(self._names)
        waiting = ", ".join(["EXISTS (SELECT 1 FROM ready WHERE queue = ?)"] * len(self._queues))
        self._look = f"SELECT (SELECT min(due) FROM delayed WHERE namespace = ?), {waiting}"
        self._looked_for = (self._namespace, *self._queues)
        self._inbox = database.wakeup.open_inbox(topic("intake", namespace))
        self._fetches = 0
        self._next_due: float | None = None
        self._receiving = threading.Lock()
        self._is_closed = False

    def receive(self, limit: int, wait: float) -> list[Handout]:
        clock = self._database.clock
        deadline = clock.monotonic() + wait
        is_over = wait <= 0
        with self._receiving:
            while not self._is_closed:
                self._inbox.drain()
                handouts = self._fetch(limit)
                if handouts or is_over or self._inbox.interrupts.take():
                    return handouts
                left = deadline - clock.monotonic()
                until_due = left if self._next_due is None else max(0.001, self._next_due - clock.now())
                is_over = not self._inbox.wait(min(left, until_due)) and left <= until_due
        return []

    def interrupt(self) -> None:
        self._inbox.interrupts.send()

    def close(self) -> None:
        self._is_closed = True
        self._inbox.interrupts.send()
        with self._receiving:  # the other thread is on its way out
            self._inbox.close()

    # ------------------------------------------------------------ one fetch

    def _fetch(self, limit: int) -> list[Handout]:
        clock = self._database.clock
        # A look first, so that idle consumers do not take turns at the write lock.
        self._next_due, *waiting = self._database.read(self._look, self._looked_for)[0]
        is_due = self._next_due is not None and self._next_due <= clock.now()
        if limit <= 0 or not (is_due or any(waiting)):
            return []
        asked_at = clock.monotonic()
        with self._database.write(durable=False) as connection:
            now = clock.now()
            if is_due:
                moves.promote(connection, self._namespace, now)
                self._next_due, *waiting = connection.execute(self._look, self._looked_for).fetchone()
            queues = [queue for queue, has_work in zip(self._queues, waiting, strict=True) if has_work]
            tokens = self._claim(connection, queues, limit, now) if queues else range(0)
        return self._handed_out(tokens, asked_at, len(queues) > 1) if tokens else []

    def _claim(self, connection: sqlite3.Connection, queues: list[int], limit: int, now: float) -> range:
        """Lease up to `limit` messages; the tokens, which follow each other since nobody else writes meanwhile."""
        self._fetches += 1
        turn = self._fetches % len(queues)
        start = _last_token(connection) + 1
        left, unsated = limit, []
        for position, queue in enumerate(queues[turn:] + queues[:turn]):
            share = -(-left // (len(queues) - position))
            count = self._claim_from(connection, queue, share, now, self._is_lowest_first)
            if count == share:
                unsated.append(queue)
            left -= count
        for queue in unsated:
            if left > 0:
                left -= self._claim_from(connection, queue, left, now)
        return range(start, start + limit - left)

    def _claim_from(
        self, connection: sqlite3.Connection, queue: int, limit: int, now: float, is_lowest_first: bool = False
    ) -> int:
        claimed = 0
        for statement in (_LEASE_LOWEST, _LEASE) if is_lowest_first else (_LEASE,):
            if claimed < limit:
                cursor = connection.execute(
                    statement,
                    {
                        "holder": self._holder,
                        "now": now,
                        "visibility": self._visibility,
                        "queue": queue,
                        "limit": limit - claimed,
                    },
                )
                count = cursor.rowcount
                if count > 0:
                    connection.execute(_LEAVE_READY, ((cursor.lastrowid or 0) - count + 1,))
                    claimed += count
        moves.count(connection, "ready", {queue: -claimed})
        return claimed

    @property
    def _is_lowest_first(self) -> bool:
        return self._fetches % LOWEST_FIRST_EVERY == 0

    def _handed_out(self, tokens: range, asked_at: float, is_mixed: bool) -> list[Handout]:
        # After the commit, so that others may write meanwhile; the rows are ours.
        rows = self._database.read(_HAND_OUT, (tokens[0], tokens[-1]))
        if is_mixed and not self._is_lowest_first:
            rows.sort(key=itemgetter(2))
        handouts = []
        for token, queue, _, task_id, visibility, state, sig, body in rows:
            lasting = self._visibility if visibility is None else visibility
            lease = Lease(token, self._holder, self._names[queue], lasting, asked_at + lasting)
            handouts.append(Handout(lease, task_id, body, counted(state), sig))
        return handouts


def _last_token(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'leased'").fetchone()
    return 0 if row is None else int(row[0])
