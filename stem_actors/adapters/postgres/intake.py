"""`Intake` in Postgres: claims messages by moving them from `ready` to `leased`, and sleeps until a hint or the time to look."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from operator import itemgetter

from stem_actors.adapters.postgres.connection import Database, Row, Transaction
from stem_actors.adapters.postgres.floors import LANES, LOWEST_LANES, WAITING, Floors, lanes
from stem_actors.adapters.postgres.sweep import PROMOTE
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.lapse import LOWEST_FIRST_EVERY, counted

__all__ = ["PostgresIntake", "work_topic"]

_CLAIM = """
    WITH look AS MATERIALIZED (
        SELECT (SELECT min(due) FROM @delayed WHERE namespace = %(namespace)s) AS due, @now AS now
    ),
    taken AS (
        DELETE FROM @ready WHERE ctid = ANY (ARRAY ({those}))
        RETURNING *
    ),
    lease AS (
        INSERT INTO @leased (
            token, holder, ends, is_started, namespace, queue, level, id, marks, visibility, since, state, sig, body
        )
        SELECT
            %(token)s::bigint - 1 + row_number() OVER (ORDER BY level, rank), %(holder)s,
            @now + coalesce(visibility, %(visibility)s::float8), false, %(namespace)s,
            queue, level, id, marks, visibility, since, state, sig, body
        FROM taken
        RETURNING token, queue, level, id, visibility, state, sig, body
    )
    SELECT due, now, token, queue, level, id, visibility, state, sig, body FROM look LEFT JOIN lease ON true ORDER BY token
"""
_CLAIM_HEAD = _CLAIM.format(those=LANES)
_CLAIM_LOWEST = _CLAIM.format(those=LOWEST_LANES)
_LOOK = f"SELECT (SELECT min(due) FROM @delayed WHERE namespace = %(namespace)s), @now, ARRAY ({WAITING})"


def work_topic(queue: int) -> str:
    """What those listen to who receive from a queue."""
    return f"q{queue}"


class PostgresIntake:
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
        self._ear = database.hints.listen([work_topic(queue) for queue in self._queues])
        self._floors = {queue: Floors(database, queue) for queue in self._queues}
        self._fetches = 0
        self._due_at: float | None = None  # by the clock's `monotonic`, what is delayed
        self._found_nothing_at: float | None = None
        self._receiving = threading.Lock()
        self._is_closed = False

    def receive(self, limit: int, wait: float) -> list[Handout]:
        clock = self._database.clock
        deadline = clock.monotonic() + wait
        is_over = wait <= 0
        with self._receiving:
            while not self._is_closed:
                if wait <= 0 or self._until_look <= 0:
                    handouts = self._look(limit)
                    if handouts:
                        return handouts
                if is_over or self._ear.take_interrupt():
                    break
                left = deadline - clock.monotonic()
                patience = min(left, self._until_look)
                is_over = not self._ear.wait(patience) and left <= patience
                if self._ear.take_interrupt():
                    break  # without another look, as the server may be out of reach
        return []

    def interrupt(self) -> None:
        self._ear.interrupt()

    def close(self) -> None:
        self._is_closed = True
        self._ear.interrupt()
        with self._receiving:  # the other thread is on its way out
            self._ear.close()

    # ------------------------------------------------------------ one fetch

    @property
    def _until_look(self) -> float:
        """Seconds in which there is nothing to look for: who found nothing looks again after a hint, or in a while."""
        if self._found_nothing_at is None or self._ear.has_heard:
            return 0.0
        left = self._found_nothing_at + self._database.hints.patience - time.monotonic()
        return left if self._due_at is None else min(left, self._due_at - self._database.clock.monotonic())

    def _look(self, limit: int) -> list[Handout]:
        self._ear.forget()
        self._found_nothing_at = None
        handouts = self._fetch(limit)
        if not handouts and limit > 0:
            self._found_nothing_at = time.monotonic()
        return handouts

    def _fetch(self, limit: int) -> list[Handout]:
        if limit <= 0:
            return []
        asked_at = self._database.clock.monotonic()
        one_statement = len(self._queues) == 1 and not self._is_lowest_first
        rows = self._claim_at_once(limit) if one_statement else self._claim_by_shares(limit)
        if not rows:
            return []
        if len({row[1] for row in rows}) > 1 and not self._is_lowest_first:
            rows.sort(key=itemgetter(2))
        self._fetches += 1
        handouts = []
        for token, queue, _, task_id, visibility, state, sig, body in rows:
            lasting = self._visibility if visibility is None else visibility
            lease = Lease(token, self._holder, self._names[queue], lasting, asked_at + lasting)
            handouts.append(Handout(lease, task_id, body, counted(state), sig))
        return handouts

    def _claim_at_once(self, limit: int) -> list[Row]:
        while True:
            rows = self._database.run(_CLAIM_HEAD, self._claim(self._queues[0], limit))
            if not self._promotes(*rows[0][:2]):
                return _handed_out(rows)

    def _claim_by_shares(self, limit: int) -> list[Row]:
        looked_for = {"namespace": self._namespace, **lanes(self._floors)}
        while True:
            ((due, now, waiting),) = self._database.run(_LOOK, looked_for)
            if not self._promotes(due, now):
                break
        if not waiting:
            return []
        turn = (self._fetches + 1) % len(waiting)

        def claim(transaction: Transaction) -> list[Row]:
            rows: list[Row] = []
            unsated = []
            for position, queue in enumerate(waiting[turn:] + waiting[:turn]):
                share = -(-(limit - len(rows)) // (len(waiting) - position))
                some = self._claim_from(transaction, queue, share, self._is_lowest_first)
                if len(some) == share:
                    unsated.append(queue)
                rows += some
            for queue in unsated:
                rows += self._claim_from(transaction, queue, limit - len(rows), False)
            return rows

        return self._database.transact(claim)

    def _claim_from(self, transaction: Transaction, queue: int, limit: int, lowest_first: bool) -> list[Row]:
        claimed: list[Row] = []
        if lowest_first and limit > 0:
            claimed += _handed_out(transaction.run(_CLAIM_LOWEST, self._claim(queue, limit)))
        if len(claimed) < limit:
            claimed += _handed_out(transaction.run(_CLAIM_HEAD, self._claim(queue, limit - len(claimed))))
        return claimed

    def _claim(self, queue: int, limit: int) -> dict[str, object]:
        return {
            **lanes({queue: self._floors[queue]}),
            "namespace": self._namespace,
            "queue": queue,
            "limit": limit,
            "token": self._database.draw_tokens(limit),
            "holder": self._holder,
            "visibility": self._visibility,
        }

    def _promotes(self, due: float | None, now: float) -> bool:
        """Promote what is due; whether there was anything, so that it has to be looked at again."""
        if due is None or due > now:
            self._due_at = None if due is None else self._database.clock.monotonic() + max(0.001, due - now)
            return False
        self._database.run(PROMOTE, {"namespace": self._namespace})
        return True

    @property
    def _is_lowest_first(self) -> bool:
        """Whether the fetch under way takes the lowest level first."""
        return (self._fetches + 1) % LOWEST_FIRST_EVERY == 0


def _handed_out(rows: list[Row]) -> list[Row]:
    """Those of a claim, without its look."""
    return [row[2:] for row in rows if row[2] is not None]
