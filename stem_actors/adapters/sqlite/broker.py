"""`Broker` in SQLite: publishes, settles and extends; receiving is `intake.py`, sweeping `sweep.py`.

A message is a row of one of four tables by its state, and moves between them in one transaction (`moves.py`). A lease is its
token, a number that the file never gives out twice; whoever names an old one finds no row.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import assert_never

from stem_actors.adapters.sqlite import claims, moves
from stem_actors.adapters.sqlite.connection import CONTENT_ERRORS, Database, Row
from stem_actors.adapters.sqlite.dead_letters import DeadLetters
from stem_actors.adapters.sqlite.intake import SqliteIntake
from stem_actors.adapters.sqlite.moves import Moving
from stem_actors.adapters.sqlite.results import packed_record, topic_of, write_records
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.adapters.sqlite.sweep import Sweeper
from stem_actors.adapters.sqlite.wakeup import topic
from stem_actors.errors import DuplicateTaskId, PayloadError
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.envelope import HIGHEST_PRIORITY, clamp_priority
from stem_actors.model.lapse import NAME_KEPT, Retention, counted, repacked
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import HeldClaim, is_kept_out
from stem_actors.ports import Answer, DeadLetterPage, DeadTask, Done, Intake, Message, QueueDepth, Refused, Stale, Swept

__all__ = ["SqliteBroker"]

PURGE_CHUNK = 10_000  # rows a transaction: others want to write too

# The oldest of a level is among those that came back (few) and the first of those that did not: see migrations/0001.sql.
_DEPTHS = """
    WITH RECURSIVE levels (level) AS (SELECT 0 UNION ALL SELECT level + 1 FROM levels WHERE level < 9)
    SELECT
        name, ready,
        (SELECT count(*) FROM leased WHERE leased.queue = queue.id),
        delayed,
        (SELECT count(*) FROM dead WHERE dead.queue = queue.id),
        (SELECT min(since) FROM (
            SELECT (
                SELECT min(since) FROM ready AS back
                WHERE back.queue = queue.id AND back.level = levels.level AND rank < 1
            ) AS since FROM levels
            UNION ALL
            SELECT (
                SELECT since FROM ready AS new
                WHERE new.queue = queue.id AND new.level = levels.level AND rank >= 1 ORDER BY rank LIMIT 1
            ) FROM levels
        ))
    FROM queue WHERE namespace = :namespace AND (:chosen IS NULL OR name IN (SELECT value FROM json_each(:chosen)))
"""

_DONE, _STALE = Done(), Stale()


class SqliteBroker:
    """A `Broker`. Any thread; threads of one process take turns."""

    def __init__(self, database: Database, namespace: str, retention: Retention) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._retention = retention
        self._intakes: list[SqliteIntake] = []
        self._work, self._records = topic("intake", namespace), topic_of(namespace)
        self._is_closed = False

    def now(self) -> float:
        return self._database.clock.now()

    # ------------------------------------------------------------ producers

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        namespace = self._namespace
        queues = {name: self._database.queue_id(namespace, name) for name in {message.queue for message in messages}}
        is_unique = any(message.claim is not None for message in messages)
        others: Mapping[str, str] = {}
        try:
            with self._database.write() as connection:
                now = self.now()
                if not _is_new(connection, namespace, sender, number, now):
                    return claims.answered(connection, namespace, sender, number) if is_unique else others
                if is_unique:
                    others = claims.contend_for(connection, [(each.id, queues[each.queue], each.claim) for each in messages], now)
                    claims.remember(connection, namespace, sender, number, others, now)
                    messages = [each for each in messages if not is_kept_out(each.id, each.claim, others)]
                _take_names(connection, namespace, [message.id for message in messages if message.is_chosen_id], now)
                moves.add_last(connection, [_moving(each, queues[each.queue], now) for each in messages if each.delay <= 0])
                late = [(now + each.delay, _moving(each, queues[each.queue], now)) for each in messages if each.delay > 0]
                moves.add_delayed(connection, namespace, late)
        except CONTENT_ERRORS as error:
            raise PayloadError(f"SQLite takes no such message: {error}; none of the batch was stored.") from error
        self._database.wakeup.notify(self._work)
        return others

    # ------------------------------------------------------------ consumers

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        intake = SqliteIntake(self._database, self._namespace_name, queues, holder, self._retention.visibility_timeout)
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
        namespace, ttl = self._namespace, self._retention.result_ttl
        acked: list[Lease] = []
        others: list[Settlement] = []
        packed: dict[int | str, Row] = {}
        for each in settlements:
            lease, verdict, _, record = each
            if isinstance(verdict, Ack):
                acked.append(lease)
            else:
                others.append(each)
            if ttl is not None and record is not None:
                packed[lease.token] = packed_record(record)
        with self._database.write() as connection:
            now = self.now()
            ended = _end_leases(connection, namespace, acked, now)
            if others:
                ended |= self._move(connection, namespace, others, now)
            if ttl is not None:
                all_ended = len(ended) == len(settlements)
                rows = [*packed.values()] if all_ended else [row for token, row in packed.items() if token in ended]
                write_records(connection, namespace, rows, now, ttl)
        if others:
            self._database.wakeup.notify(self._work)
        if any(record is not None and record.state.is_final for _, _, _, record in settlements):
            self._database.wakeup.notify(self._records)
        if len(ended) == len(settlements):
            return [_DONE] * len(ended)
        return [_DONE if lease.token in ended else _STALE for lease, _, _, _ in settlements]

    def _move(
        self, connection: sqlite3.Connection, namespace: int, settlements: Sequence[Settlement], now: float
    ) -> set[int | str]:
        """Carry out the verdicts under which a message lives on. Returns the tokens that were held."""
        leased: dict[int | str, Moving] = {}
        for holder, tokens in _by_holder(each.lease for each in settlements):
            held, _ = moves.held_tokens(connection, holder, tokens)
            leased |= moves.take_leased(connection, held)
        first: dict[int | str, Moving] = {}
        last: list[Moving] = []
        delayed: list[tuple[float, Moving]] = []
        dead = []
        for settlement in settlements:
            message = leased.get(settlement.lease.token)
            if message is None:
                continue
            state = settlement.state if settlement.state is not None else counted(message.state)
            message = message._replace(state=repacked(state, message.state))
            match settlement.verdict:
                case Release():
                    first[settlement.lease.token] = message
                case Defer(delay) | Retry(delay) if delay > 0:
                    delayed.append((now + delay, message))
                case Defer() | Retry():
                    last.append(message._replace(since=now))
                case DeadLetter(reason, meta):
                    dead.append((message, reason, meta))
                case Ack():
                    pass  # not among them
                case _:
                    assert_never(settlement.verdict)
        moves.add_first(connection, [message for _, message in sorted(first.items(), key=itemgetter(0))])  # as handed out
        moves.add_last(connection, last)
        moves.add_delayed(connection, namespace, delayed)
        moves.add_dead(connection, namespace, dead, now)
        return set(leased)

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        held: set[int | str] = set()
        alike: dict[float, list[Lease]] = defaultdict(list)
        for lease in leases:
            alike[lease.visibility].append(lease)
        with self._database.write(durable=False) as connection:
            now = self.now()
            for visibility, group in alike.items():
                for holder, tokens in _by_holder(group):
                    found, _ = moves.held_tokens(connection, holder, tokens)
                    connection.execute(f"UPDATE leased SET ends = ? WHERE token IN {MANY}", (now + visibility, found))
                    held.update(json.loads(found))
        return [_DONE if lease.token in held else _STALE for lease in leases]

    def held(self, holder: str) -> list[Handout]:
        asked_at, now = self._database.clock.monotonic(), self.now()
        rows = self._database.read(
            "SELECT token, queue.name, leased.id, coalesce(visibility, ?), ends, state, sig, body FROM leased "
            "JOIN queue ON queue.id = leased.queue WHERE holder = ? AND namespace = ? ORDER BY token",
            (self._retention.visibility_timeout, holder, self._namespace),
        )
        return [
            Handout(Lease(token, holder, queue, visibility, asked_at + ends - now), task_id, body, counted(state), sig)
            for token, queue, task_id, visibility, ends, state, sig, body in rows
        ]

    def mark_started(self, lease: Lease) -> Answer:
        with self._database.write() as connection:
            count = connection.execute(
                "UPDATE leased SET is_started = 1 WHERE token = ? AND holder = ?", (lease.token, lease.holder)
            ).rowcount
        return _DONE if count else _STALE

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        held: set[int | str] = set()
        with self._database.write() as connection:
            for holder, tokens in _by_holder(leases):
                found, _ = moves.held_tokens(connection, holder, tokens)
                claims.end_leased(connection, found)
                held.update(json.loads(found))
        return [_DONE if lease.token in held else _STALE for lease in leases]

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        with self._database.write(durable=False) as connection:
            return claims.find(connection, self._namespace, key, queue, self.now())

    def free_claim(self, queue: str, key: str) -> bool:
        namespace = self._namespace
        with self._database.write() as connection:
            return claims.free(connection, namespace, queue, key, self.now())

    def sweep(self) -> Swept:
        swept = self._sweeper.sweep()
        if swept.promoted or swept.reclaimed:
            self._database.wakeup.notify(self._work)
        if swept.poisoned:
            self._database.wakeup.notify(self._records)
        return swept

    # ------------------------------------------------------------ operators

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        now, namespace = self.now(), self._namespace
        rows = self._database.read(_DEPTHS, {"namespace": namespace, "chosen": None if queues is None else as_set(queues)})
        found = {
            name: QueueDepth(name, ready, leased, delayed, dead, None if since is None else max(0.0, now - since))
            for name, ready, leased, delayed, dead, since in rows
            if queues is not None or ready or leased or delayed or dead
        }
        return [
            found.get(name) or QueueDepth(name, 0, 0, 0, 0, None) for name in sorted(found if queues is None else set(queues))
        ]

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        namespace = self._namespace
        rows = self._database.read("SELECT id FROM queue WHERE (namespace, name) = (?, ?)", (namespace, queue))
        if not rows:
            return 0
        number = rows[0][0]
        removed = 0
        for table in ("ready", "delayed"):
            count = PURGE_CHUNK
            while count == PURGE_CHUNK:
                count = self._purge_some(table, namespace, number)
                removed += count
        return removed + (self.purge_dead_letters(queue) if dead_letters else 0)

    def _purge_some(self, table: str, namespace: int, queue: int) -> int:
        key = {"ready": "queue, level, rank", "delayed": "number"}[table]
        some = f"FROM {table} WHERE queue = ? ORDER BY {key} LIMIT {PURGE_CHUNK}"
        with self._database.write() as connection:
            marked = f"SELECT queue, id FROM (SELECT queue, id, is_named {some}) WHERE {claims.IS_CLAIM}"
            claims.end(connection, connection.execute(marked, (queue,)))
            connection.execute(
                f"DELETE FROM named WHERE namespace = ? AND id IN (SELECT id FROM (SELECT id, is_named {some}) WHERE is_named)",
                (namespace, queue),
            )
            removed = connection.execute(f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} {some})", (queue,)).rowcount
            moves.count(connection, table, {queue: -removed})
        return removed

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
            self._database.wakeup.notify(self._work)
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

    # ------------------------------------------------------------ opened at first use, since a producer may never get there

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)

    @cached_property
    def _sweeper(self) -> Sweeper:
        return Sweeper(self._database, self._namespace, self._retention)

    @cached_property
    def _dead(self) -> DeadLetters:
        return DeadLetters(self._database, self._namespace, self._retention.result_ttl)


def _moving(message: Message, queue: int, now: float) -> Moving:
    level = HIGHEST_PRIORITY - clamp_priority(message.priority)
    mark = int(message.is_chosen_id)
    if message.claim is not None and message.claim.lasts is None:
        mark |= claims.MARK
    return Moving(queue, level, message.id, mark, message.visibility_timeout, now, b"", message.sig, message.body)


def _is_new(connection: sqlite3.Connection, namespace: int, sender: str, number: int, now: float) -> bool:
    """Whether this publication was not stored before; it is from now on."""
    return bool(
        connection.execute(
            "INSERT INTO sender (namespace, name, number, at) VALUES (?, ?, ?, ?) ON CONFLICT (namespace, name) DO UPDATE "
            "SET number = excluded.number, at = excluded.at WHERE excluded.number > sender.number",
            (namespace, sender, number, now),
        ).rowcount
    )


def _take_names(connection: sqlite3.Connection, namespace: int, ids: Sequence[str], now: float) -> None:
    if not ids:
        return
    taken = connection.execute(
        f"SELECT id FROM named WHERE namespace = ? AND id IN {MANY} AND (ended_at IS NULL OR ended_at > ?)",
        (namespace, as_set(ids), now - NAME_KEPT),
    ).fetchall()
    twice = [task_id for task_id, count in Counter(ids).items() if count > 1]
    if taken or twice:
        task_id = taken[0][0] if taken else twice[0]
        raise DuplicateTaskId(
            f"the id {task_id!r} belongs to a task that is pending or ended less than an hour ago; nothing was enqueued."
        )
    connection.executemany("INSERT OR REPLACE INTO named VALUES (?, ?, NULL)", [(namespace, task_id) for task_id in ids])


def _end_leases(connection: sqlite3.Connection, namespace: int, leases: Sequence[Lease], now: float) -> set[int | str]:
    """Done with for good. Returns the tokens that were held."""
    ended: set[int | str] = set()
    for holder, tokens in _by_holder(leases):
        found, has_names = moves.held_tokens(connection, holder, tokens)
        if has_names:
            connection.execute(
                "UPDATE named SET ended_at = ? WHERE namespace = ? AND id IN "
                f"(SELECT id FROM leased WHERE is_named AND token IN {MANY})",
                (now, namespace, found),
            )
            claims.end_leased(connection, found)
        connection.execute(f"DELETE FROM leased WHERE token IN {MANY}", (found,))
        ended.update(json.loads(found))
    return ended


def _by_holder(leases: Iterable[Lease]) -> Iterable[tuple[str, list[int | str]]]:
    tokens: dict[str, list[int | str]] = defaultdict(list)
    for token, holder, _, _, _ in leases:
        tokens[holder].append(token)
    return tokens.items()
