"""`Broker` in Postgres. Storing is `publishing.py`, receiving `intake.py`, ending leases `settling.py`, sweeping `sweep.py`.

A message is a row of one of four tables by its state, and moves between them in one statement. A lease is its token and its
holder; whoever names another finds no row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from stem_actors.adapters.postgres import claims
from stem_actors.adapters.postgres.connection import Database, Row, Transaction
from stem_actors.adapters.postgres.dead_letters import DeadLetters
from stem_actors.adapters.postgres.errors import CONTENT_ERRORS
from stem_actors.adapters.postgres.intake import PostgresIntake, work_topic
from stem_actors.adapters.postgres.publishing import Publication, publish, publish_within
from stem_actors.adapters.postgres.results import topic_of
from stem_actors.adapters.postgres.settling import held_leases, settle
from stem_actors.adapters.postgres.sweep import Sweeper
from stem_actors.errors import PayloadError
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.lapse import Retention, counted
from stem_actors.model.outcome import Ack
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import HeldClaim
from stem_actors.ports import Answer, DeadLetterPage, DeadTask, Done, Intake, Message, QueueDepth, Refused, Stale, Swept

__all__ = ["PostgresBroker"]

PURGE_CHUNK = 10_000  # rows a transaction

_DONE, _STALE = Done(), Stale()


class PostgresBroker:
    """A `Broker`. Any thread."""

    def __init__(self, database: Database, namespace: str, retention: Retention) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._retention = retention
        self._intakes: list[PostgresIntake] = []
        self._last: tuple[str, int] = ("", 0)
        self._is_closed = False

    def now(self) -> float:
        return self._database.now()

    # ------------------------------------------------------------ producers

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        publication = self._publication(messages)
        last_sender, last_number = self._last
        previous = last_number if sender == last_sender and last_number < number else 0
        try:
            others = publish(self._database, publication, sender, number, previous)
        except CONTENT_ERRORS as error:
            raise PayloadError(f"Postgres takes no such message: {error}; none of the batch was stored.") from error
        self._last = (sender, number)
        self._database.hints.notify(map(work_topic, publication.queues.values()))
        return others

    def publish_within(self, connection: Any, messages: Sequence[Message]) -> Mapping[str, str]:
        publication = self._publication(messages)
        transaction = Transaction.of_caller(self._database, connection)
        try:
            with transaction.savepoint():
                others = publish_within(transaction, publication)
                transaction.hint(map(work_topic, publication.queues.values()))
        except CONTENT_ERRORS as error:
            raise PayloadError(f"Postgres takes no such message: {error}; none of the batch was stored.") from error
        return others

    def _publication(self, messages: Sequence[Message]) -> Publication:
        namespace = self._namespace
        queues = {name: self._database.queue_id(namespace, name) for name in {message.queue for message in messages}}
        return Publication(namespace, queues, messages)

    # ------------------------------------------------------------ consumers

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        intake = PostgresIntake(self._database, self._namespace_name, queues, holder, self._retention.visibility_timeout)
        self._intakes.append(intake)
        return intake

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        if len(settlements) > 1 and len({token for (token, _, _, _, _), _, _, _ in settlements}) < len(settlements):
            return [answer for settlement in settlements for answer in self.settle([settlement])]
        try:
            return self._settle(settlements)
        except CONTENT_ERRORS as error:
            if len(settlements) == 1:
                return [Refused(f"{type(error).__name__}: {error}")]
            middle = len(settlements) // 2  # one of them is to blame: find it, and settle the others
            return [*self.settle(settlements[:middle]), *self.settle(settlements[middle:])]

    def _settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        if not settlements:
            return []
        namespace = self._namespace
        ended = settle(self._database, namespace, settlements, self._retention.result_ttl)
        queues = {each.lease.queue for each in settlements if not isinstance(each.verdict, Ack)}
        topics = [work_topic(self._database.queue_id(namespace, queue)) for queue in queues]
        if any(record is not None and record.state.is_final for _, _, _, record in settlements):
            topics.append(topic_of(namespace))
        if topics:
            self._database.hints.notify(topics)
        if len(ended) == len(settlements):
            return [_DONE] * len(ended)
        return [_DONE if each.lease.token in ended else _STALE for each in settlements]

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        alike: dict[float, list[Lease]] = defaultdict(list)  # all of a worker but for tasks with a timeout of their own
        for lease in leases:
            alike[lease.visibility].append(lease)
        told = ({**held_leases(some), "visibility": visibility} for visibility, some in alike.items())
        return self._held_ones(leases, [row for parameters in told for row in self._database.run(_EXTEND, parameters)])

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        return self._held_ones(leases, self._database.run(claims.END_LEASED, held_leases(leases)))

    def _held_ones(self, leases: Sequence[Lease], rows: Sequence[Row]) -> list[Answer]:
        held = {(token, holder) for token, holder, *_ in rows}
        return [_DONE if (lease.token, lease.holder) in held else _STALE for lease in leases]

    def held(self, holder: str) -> list[Handout]:
        asked_at = self._database.clock.monotonic()
        rows = self._database.read(
            _HELD, {"holder": holder, "namespace": self._namespace, "visibility": self._retention.visibility_timeout}
        )
        return [
            Handout(Lease(token, holder, queue, visibility, asked_at + ends - now), task_id, body, counted(state), sig)
            for token, queue, task_id, visibility, ends, now, state, sig, body in rows
        ]

    def mark_started(self, lease: Lease) -> Answer:
        rows = self._database.run(_MARK, {"token": lease.token, "holder": lease.holder})
        return _DONE if rows else _STALE

    def sweep(self) -> Swept:
        swept, queues = self._sweeper.sweep()
        if queues:
            self._database.hints.notify(map(work_topic, queues))
        if swept.poisoned:
            self._database.hints.notify([topic_of(self._namespace)])
        return swept

    # ------------------------------------------------------------ operators

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        rows = self._database.read(_DEPTHS, {"namespace": self._namespace, "queues": None if queues is None else list(queues)})
        found = {
            name: QueueDepth(name, ready, leased, delayed, dead, None if since is None else max(0.0, now - since))
            for name, ready, leased, delayed, dead, since, now in rows
            if queues is not None or ready or leased or delayed or dead
        }
        return [
            found.get(name) or QueueDepth(name, 0, 0, 0, 0, None) for name in sorted(found if queues is None else set(queues))
        ]

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        parameters = {
            "namespace": self._namespace,
            "queue": self._database.queue_id(self._namespace, queue),
            "limit": PURGE_CHUNK,
        }
        removed = 0
        for statement in (_PURGE_READY, _PURGE_DELAYED):
            count = PURGE_CHUNK
            while count == PURGE_CHUNK:
                ((count,),) = self._database.run(statement, parameters)
                removed += count
        return removed + (self.purge_dead_letters(queue) if dead_letters else 0)

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        return claims.find(self._database, self._namespace, key, queue)

    def free_claim(self, queue: str, key: str) -> bool:
        return claims.free(self._database, self._namespace, queue, key)

    def dead_letters(self, queue: str, limit: int = 50, offset: int = 0, since: float | None = None) -> DeadLetterPage:
        return self._dead.page(queue, limit, offset, since)

    def dead_letter(self, queue: str, task_id: str) -> DeadTask | None:
        return self._dead.find(queue, task_id)

    def replay_dead_letters(
        self,
        queue: str,
        limit: int = 50,
        since: float | None = None,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
    ) -> list[DeadTask]:
        replayed = self._dead.replay(queue, limit, since, ids, delay, dry_run)
        if replayed and not dry_run:
            self._database.hints.notify([work_topic(self._database.queue_id(self._namespace, queue))])
        return replayed

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        return self._dead.purge(queue, limit, since, ids)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for intake in self._intakes:
                intake.close()
            self._database.detach()

    # ------------------------------------------------------------ found out at first use, since a producer may never get there

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)

    @cached_property
    def _sweeper(self) -> Sweeper:
        return Sweeper(self._database, self._namespace, self._retention)

    @cached_property
    def _dead(self) -> DeadLetters:
        return DeadLetters(self._database, self._namespace, self._retention.result_ttl)


# In one order, lest it and a sweep wait for each other; without a join, as in settling.py.
_EXTEND = """
    WITH told AS (SELECT * FROM unnest(%(tokens)s::bigint[], %(holders)s::text[]) AS told (token, holder)),
    locked AS (
        SELECT token FROM @leased
        WHERE token = ANY (%(tokens)s::bigint[]) AND ((token, holder) IN (SELECT token, holder FROM told)) IS TRUE
        ORDER BY token FOR UPDATE
    )
    UPDATE @leased SET ends = @now + %(visibility)s::float8
    WHERE token = ANY (%(tokens)s::bigint[]) AND (token IN (SELECT token FROM locked)) IS TRUE
    RETURNING token, holder, @lazily
"""
_HELD = """
    SELECT token, queue.name, lease.id, coalesce(visibility, %(visibility)s::float8), ends, @now, state, sig, body
    FROM @leased AS lease JOIN @queue AS queue ON queue.id = lease.queue
    WHERE holder = %(holder)s AND lease.namespace = %(namespace)s ORDER BY token
"""
_MARK = "UPDATE @leased SET is_started = true WHERE token = %(token)s AND holder = %(holder)s RETURNING 1"

# ---------------------------------------------------------------- operators

# The oldest of a level is among those that came back (few) and the first of those that did not: see migrations/0001.sql.
_DEPTHS = """
    SELECT
        name,
        (SELECT count(*) FROM @ready AS ready WHERE ready.queue = queue.id),
        (SELECT count(*) FROM @leased AS leased WHERE leased.queue = queue.id),
        (SELECT count(*) FROM @delayed AS delayed WHERE delayed.namespace = queue.namespace AND delayed.queue = queue.id),
        (SELECT count(*) FROM @dead AS dead WHERE dead.queue = queue.id),
        (
            SELECT least(min(back.since), min(new.since)) FROM generate_series(0, 9) AS level
            LEFT JOIN LATERAL (
                SELECT min(since) AS since FROM @ready WHERE queue = queue.id AND ready.level = level AND rank < 1
            ) AS back ON true
            LEFT JOIN LATERAL (
                SELECT since FROM @ready WHERE queue = queue.id AND ready.level = level AND rank >= 1 ORDER BY rank LIMIT 1
            ) AS new ON true
        ),
        @now
    FROM @queue AS queue
    WHERE namespace = %(namespace)s AND (%(queues)s::text[] IS NULL OR name = ANY (%(queues)s::text[]))
"""

_PURGE = """
    WITH gone AS (
        DELETE FROM {table} WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM {table} WHERE {those} LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )) RETURNING queue, id, marks
    ),
    nameless AS (
        DELETE FROM @named WHERE namespace = %(namespace)s AND id IN (SELECT id FROM gone WHERE marks & 1 <> 0)
    ),
    unclaimed AS (
        DELETE FROM @claim AS claim USING gone WHERE marks & 2 <> 0 AND claim.queue = gone.queue AND claim.owner = gone.id
    )
    SELECT count(*) FROM gone
"""
_PURGE_READY = _PURGE.format(table="@ready", those="queue = %(queue)s ORDER BY level, rank")
_PURGE_DELAYED = _PURGE.format(table="@delayed", those="namespace = %(namespace)s AND queue = %(queue)s ORDER BY due, number")
