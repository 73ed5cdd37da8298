"""The sweep in Postgres: what is due is promoted, lapsed leases come back, and what has had its time is dropped.

A look first, which is all there is to most sweeps: it says when the last one was and which of these have something to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import msgpack

from stem_actors.adapters.postgres.arrays import Bytes, Integers
from stem_actors.adapters.postgres.claims import ENDING
from stem_actors.adapters.postgres.connection import Database, Transaction
from stem_actors.adapters.postgres.pace import Pace
from stem_actors.adapters.postgres.results import read_record, write_record
from stem_actors.model.lapse import (
    NAME_KEPT,
    POISON,
    SENDER_KEPT,
    Poisoned,
    Retention,
    Watch,
    after_lapse,
    counted,
    poison_record,
    repacked,
    swept,
)
from stem_actors.ports import Swept

__all__ = ["PROMOTE", "Sweeper"]

TAKE_LIMIT = 1000  # leases or dead letters, a sweep
PRUNE_INTERVAL = 30.0  # for what nobody waits for

PROMOTE = """
    WITH due AS (
        DELETE FROM @delayed WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM @delayed WHERE namespace = %(namespace)s AND due <= @now
            ORDER BY due, number LIMIT 1000 FOR UPDATE SKIP LOCKED
        )) RETURNING *
    ),
    ready AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, nextval('@number'), id, marks, visibility, @now, state, sig, body
        FROM (SELECT * FROM due ORDER BY due, number) AS message
    )
    SELECT queue, count(*), @lazily FROM due GROUP BY queue
"""
"""What is due joins the tail of its level, in the order in which it fell due. A row for each queue."""

# Leases are looked through in the order of their key: the index leads past the pages of the many that are settled by now, once a
# vacuum has been there. Until then it leads to each of them, so this is done less often when it takes long.
_LOOK = """
    SELECT
        last_sweep, swept_since, @now,
        (SELECT min(due) FROM @delayed WHERE namespace = %(namespace)s),
        %(leases)s AND EXISTS (
            SELECT FROM (
                SELECT FROM @leased WHERE namespace = %(namespace)s AND ends <= @now ORDER BY token LIMIT 1
            ) AS lapsed
        ),
        EXISTS (
            SELECT FROM @queue AS queue JOIN @dead AS dead ON dead.queue = queue.id
            WHERE queue.namespace = %(namespace)s AND dead_at <= @now - %(kept)s::float8
        ),
        EXISTS (SELECT FROM @queue WHERE namespace = %(namespace)s AND replayed > 0)
    FROM @namespace WHERE id = %(namespace)s
"""
# Whoever comes first of those who looked at the same time has this sweep; the others do not wait.
_TAKE_TURN = """
    UPDATE @namespace SET last_sweep = %(last)s::float8, swept_since = %(since)s::float8
    WHERE id = (
        SELECT id FROM @namespace WHERE id = %(namespace)s AND last_sweep IS NOT DISTINCT FROM %(seen)s::float8
        FOR UPDATE SKIP LOCKED
    )
    RETURNING @lazily
"""
_LAPSED = """
    SELECT token, ends, coalesce(visibility, %(visibility)s::float8), is_started, state, lease.id, queue.name
    FROM @leased AS lease JOIN @queue AS queue ON queue.id = lease.queue
    WHERE lease.namespace = %(namespace)s AND ends <= @now ORDER BY token LIMIT %(limit)s FOR UPDATE OF lease SKIP LOCKED
"""
_RETURN = """
    WITH told AS (SELECT * FROM unnest(%(tokens)s::bigint[], %(states)s::bytea[]) AS told (token, state)),
    gone AS (
        DELETE FROM @leased AS lease USING told WHERE lease.token = ANY (%(tokens)s::bigint[]) AND lease.token = told.token
        RETURNING lease.*, told.state AS onwards
    ),
    first AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, -nextval('@number'), id, marks, visibility, since, onwards, sig, body
        FROM (SELECT * FROM gone ORDER BY token DESC) AS message
    )
    SELECT DISTINCT queue FROM gone
"""
_BURY = f"""
    WITH told AS (
        SELECT * FROM unnest(%(tokens)s::bigint[], %(states)s::bytea[], %(metas)s::bytea[]) AS told (token, state, meta)
    ),
    gone AS (
        DELETE FROM @leased AS lease USING told WHERE lease.token = ANY (%(tokens)s::bigint[]) AND lease.token = told.token
        RETURNING lease.*, told.state AS onwards, meta
    ),
    dead AS (
        INSERT INTO @dead (number, dead_at, namespace, queue, level, id, marks, visibility, reason, meta, state, sig, body)
        SELECT nextval('@number'), @now, namespace, queue, level, id, marks, visibility, %(reason)s, meta, onwards, sig, body
        FROM (SELECT * FROM gone ORDER BY token) AS message
    ),
    {ENDING.format(ended="true")}
    SELECT 1
"""
_DROP = """
    WITH gone AS (
        DELETE FROM @dead WHERE number = ANY (ARRAY (
            SELECT number FROM @queue AS queue JOIN @dead AS dead ON dead.queue = queue.id
            WHERE queue.namespace = %(namespace)s AND dead_at <= @now - %(kept)s::float8 LIMIT %(limit)s
        )) RETURNING 1
    )
    SELECT count(*) FROM gone
"""
_TELL_REPLAYED = """
    WITH told AS (SELECT id, name, replayed FROM @queue WHERE namespace = %(namespace)s AND replayed > 0 FOR UPDATE)
    UPDATE @queue AS queue SET replayed = 0 FROM told WHERE queue.id = told.id RETURNING told.name, told.replayed
"""
_PRUNE = tuple(
    f"DELETE FROM @{table} WHERE namespace = %(namespace)s AND {column} <= @now - {kept}"
    for table, column, kept in (
        ("sender", "at", SENDER_KEPT),
        ("named", "ended_at", NAME_KEPT),
        ("claim", "ends_at", 0),
        ("control", "expires_at", 0),
        ("lock", "expires_at", 0),
        ("heartbeat", "expires_at", 0),
    )
)


class _Look(NamedTuple):
    """`seen`: when the last sweep was; the rest says which parts of this one have something to do."""

    seen: float | None
    since: float | None
    now: float
    due: float | None
    has_lapsed: bool
    has_expired: bool
    has_replayed: bool

    @property
    def watch(self) -> Watch | None:
        """The watch after this sweep; None when it is too early for one."""
        return swept(None if self.seen is None or self.since is None else Watch(self.seen, self.since), self.now)


class Sweeper:
    """Sweeps one namespace. Any thread; what two processes do at once, one of them skips."""

    def __init__(self, database: Database, namespace: int, retention: Retention) -> None:
        self._database = database
        self._here = {"namespace": namespace}
        self._namespace = namespace
        self._retention = retention
        self._pruned_at: float | None = None
        self._leases = Pace(database.clock.monotonic)

    def sweep(self) -> tuple[Swept, Set[int]]:
        """What it did, and the queues in which there is something to do now."""
        look = self._look()
        watch = look.watch
        if watch is None:
            return Swept(skipped=True, next_due=_seconds_to(look)), frozenset()
        turn = {**self._here, "last": watch.last, "since": watch.since, "seen": look.seen}
        is_due = look.due is not None and look.due <= look.now
        is_pruned = self._pruned_at is not None and 0 <= look.now - self._pruned_at < PRUNE_INTERVAL
        if is_pruned and not (is_due or look.has_lapsed or look.has_expired or look.has_replayed):
            is_ours = bool(self._database.run(_TAKE_TURN, turn))
            return Swept(skipped=not is_ours, next_due=_seconds_to(look)), frozenset()

        def sweep_all(transaction: Transaction) -> tuple[Swept, Set[int]]:
            if not transaction.run(_TAKE_TURN, turn):
                return Swept(skipped=True), frozenset()
            promoted = transaction.run(PROMOTE, self._here) if is_due else []
            returned, poisoned, queues = self._take(transaction, watch) if look.has_lapsed else (0, 0, frozenset[int]())
            done = Swept(
                sum(count for _, count, _ in promoted),
                returned,
                poisoned,
                self._drop(transaction) if look.has_expired else 0,
                replayed=self._tell_replayed(transaction) if look.has_replayed else {},
            )
            if not is_pruned:
                for statement in _PRUNE:
                    transaction.run(statement, self._here)
            return done, queues | {queue for queue, _, _ in promoted}

        done, queues = self._database.transact(sweep_all)
        if not is_pruned and not done.skipped:
            self._pruned_at = look.now
        return replace(done, next_due=_seconds_to(self._look() if is_due else look)), queues

    def _look(self) -> _Look:
        looks_at_leases = self._leases.is_due
        told = {**self._here, "kept": self._retention.dead_letter_ttl, "leases": looks_at_leases}
        with self._leases.timed() if looks_at_leases else nullcontext():
            return _Look(*self._database.run(_LOOK, told)[0])

    # ------------------------------------------------------------ leases

    def _take(self, transaction: Transaction, watch: Watch) -> tuple[int, int, Set[int]]:
        """Give back the lapsed leases that patience allows to take: how many went back, how many were poison, to which queues."""
        rows = transaction.run(_LAPSED, {**self._here, "visibility": self._retention.visibility_timeout, "limit": TAKE_LIMIT})
        returned: list[tuple[int, bytes]] = []
        poisoned: list[tuple[int, bytes, bytes]] = []
        for token, ends, visibility, is_started, raw, task_id, queue in rows:
            if not watch.may_take(visibility, ends):
                continue
            fate = after_lapse(counted(raw), is_started, self._retention.max_deaths)
            if isinstance(fate, Poisoned):
                poisoned.append((token, repacked(fate.state, raw), msgpack.packb(fate.meta)))
                self._record_poison(transaction, task_id, queue, fate)
            else:
                returned.append((token, repacked(fate.state, raw)))
        queues: Set[int] = frozenset()
        if returned:
            tokens, states = zip(*returned, strict=True)
            back = transaction.run(_RETURN, {"tokens": Integers(tokens), "states": Bytes(states)})
            queues = {queue for (queue,) in back}
        if poisoned:
            tokens, states, metas = zip(*poisoned, strict=True)
            told = {"tokens": Integers(tokens), "states": Bytes(states), "metas": Bytes(metas), "reason": POISON}
            transaction.run(_BURY, told)
        return len(returned), len(poisoned), queues

    def _record_poison(self, transaction: Transaction, task_id: str, queue: str, poison: Poisoned) -> None:
        ttl = self._retention.result_ttl
        if ttl is not None:
            before = read_record(transaction, self._namespace, task_id)
            write_record(transaction, self._namespace, ttl, poison_record(task_id, queue, poison, before))

    # ------------------------------------------------------------ dead letters

    def _drop(self, transaction: Transaction) -> int:
        ((count,),) = transaction.run(_DROP, {**self._here, "kept": self._retention.dead_letter_ttl, "limit": TAKE_LIMIT})
        return int(count)

    def _tell_replayed(self, transaction: Transaction) -> Mapping[str, int]:
        return dict(transaction.run(_TELL_REPLAYED, self._here))


def _seconds_to(look: _Look) -> float | None:
    """When the next message falls due."""
    return None if look.due is None else max(0.0, look.due - look.now)
