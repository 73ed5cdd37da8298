"""`Broker` in Redis: publishes, settles, extends; receiving is `intake.py`, sweeping `sweep.py`, dead letters `dead_letters.py`.

An entry of a stream is a message, and its id a lease: handed out once, by `XREADGROUP >`. Whatever comes back is a new entry. So
the whole fence is one question, asked inside the script that acts on it: is this entry pending for this consumer?
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from stem_actors.adapters.redis.connection import Call, Script, Server
from stem_actors.adapters.redis.dead_letters import DeadLetters
from stem_actors.adapters.redis.entries import handout, split_token
from stem_actors.adapters.redis.intake import RedisIntake
from stem_actors.adapters.redis.keys import LANES, Keys
from stem_actors.adapters.redis.settle_batch import SettleBatch, bounds
from stem_actors.adapters.redis.sweep import Sweeper
from stem_actors.errors import DuplicateTaskId, PayloadError
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.envelope import clamp_priority
from stem_actors.model.lapse import Retention
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import Duplicate, HeldClaim
from stem_actors.ports import Answer, DeadLetterPage, DeadTask, Done, Intake, Message, QueueDepth, Refused, Stale, Swept

__all__ = ["RedisBroker"]

MOST_AT_ONCE = 1000  # items of a script
REGISTERED_FOR = 30.0  # seconds for which a queue is taken to be listed
CONTENT_ERRORS = (TypeError, ValueError, OverflowError)

_DONE, _STALE = Done(), Stale()


class RedisBroker:
    """A `Broker`. Any thread."""

    def __init__(self, server: Server, namespace: str, retention: Retention) -> None:
        self._server = server.attach()
        self._namespace = namespace
        self._keys = Keys(namespace)
        self._retention = retention
        self._ttl_ms = 0 if retention.result_ttl is None else round(retention.result_ttl * 1000)
        self._intakes: list[RedisIntake] = []
        self._sweeper = Sweeper(server, self._keys, retention)
        self._dead = DeadLetters(server, self._keys, self._ttl_ms)
        self._registered: dict[str, float] = {}
        self._is_closed = False

    def now(self) -> float:
        return self._server.now()

    # ------------------------------------------------------------ producers

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        """As `Broker.publish`; of more than 1,000 messages each thousand is a step, and a repetition adds what is missing.

        What claims came to is remembered of the last step only.
        """
        queues = list(dict.fromkeys(message.queue for message in messages))
        place = {queue: at for at, queue in enumerate(queues, 1)}
        chosen = [message.id for message in messages if message.is_chosen_id]
        self._register(queues)
        keys = [self._keys.senders, self._keys.names, *map(self._keys.meta, queues)]
        others: dict[str, str] = {}
        for part, start in enumerate(range(0, max(1, len(messages)), MOST_AT_ONCE)):
            some = messages[start : start + MOST_AT_ONCE]
            names = chosen if part == 0 else []
            claims = _claims(some, place)
            arguments: list[Any] = [self._server.given, sender, number * 1_000_000 + part, len(names), len(claims) // 6]
            arguments += (*names, *claims)
            arguments += _shortest(some, queues)
            arguments += _runs(some, place)
            try:
                taken = self._publish(keys, arguments)
            except UnicodeEncodeError as error:
                raise PayloadError(f"Redis takes no such message: {error}; none of the batch was stored.") from error
            if isinstance(taken, list):
                ids = [each.decode() for each in taken]
                others.update(zip(ids[::2], ids[1::2], strict=True))
            elif taken:
                raise DuplicateTaskId(
                    f"the id {taken.decode()!r} belongs to a task that is pending or ended less than an hour ago; "
                    "nothing was enqueued."
                )
        return others

    def _publish(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if self._server.endpoint.wait_replicas:
            return self._server.run_replicated(Script.named("publish"), keys, arguments)
        return self._server.run(Script.named("publish"), keys, arguments)

    def _register(self, queues: Sequence[str]) -> None:
        """List the queues, so that they are swept and counted. A queue is forgotten only after ten minutes without use."""
        now = time.monotonic()
        new = [queue for queue in queues if now - self._registered.get(queue, float("-inf")) >= REGISTERED_FOR]
        if new:
            self._server.command("SADD", self._keys.queues, *new)
            kept = {queue: at for queue, at in self._registered.items() if now - at < REGISTERED_FOR}
            self._registered = kept | dict.fromkeys(new, now)

    # ------------------------------------------------------------ consumers

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        intake = RedisIntake(self._server, self._namespace, queues, holder, self._retention.visibility_timeout)
        self._intakes.append(intake)
        self._sweeper.own.update(queues)
        return intake

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        answers: list[Answer] = [_STALE] * len(settlements)
        has_twins = len({token for (token, _, _, _, _), _, _, _ in settlements}) < len(settlements)
        batches: list[SettleBatch] = []
        filling: dict[tuple[str, str], SettleBatch] = {}
        for at, each in enumerate(settlements):
            (_, holder, queue, _, _), _, _, _ = each
            batch = filling.get((queue, holder))
            if batch is None or len(batch) >= MOST_AT_ONCE:
                batch = filling[queue, holder] = SettleBatch(self._keys, queue, holder, self._ttl_ms, has_twins)
                batches.append(batch)
            try:
                batch.add(at, each)
            except CONTENT_ERRORS as error:
                answers[at] = Refused(f"{type(error).__name__}: {error}")
        batches = [batch for batch in batches if len(batch)]
        results = self._server.run_all([batch.call(self._server.given) for batch in batches])
        for batch, ended in zip(batches, results, strict=True):
            for at, is_done in zip(batch.places(), ended, strict=True):
                if is_done:
                    answers[at] = _DONE
        return answers

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        return self._of_lanes("extend", [self._server.given], leases)

    def _of_lanes(self, script: str, first_arguments: Sequence[Any], leases: Sequence[Lease]) -> list[Answer]:
        """Run a script about leases, of one lane at a time; it says of each whether it is held."""
        groups: dict[tuple[str, str, str], list[tuple[int, str]]] = defaultdict(list)
        for at, lease in enumerate(leases):
            lane, entry_id, _ = split_token(lease.token)
            groups[lease.queue, lease.holder, lane].append((at, entry_id))
        calls, places = [], []
        for (queue, holder, lane), members in groups.items():
            for start in range(0, len(members), MOST_AT_ONCE):
                some = members[start : start + MOST_AT_ONCE]
                ids = [entry_id for _, entry_id in some]
                first, last = bounds(ids)
                arguments = [*first_arguments, holder, lane, first, last, *ids]
                calls.append(Call(Script.named(script), [self._keys.meta(queue)], arguments))
                places.append([at for at, _ in some])
        answers: list[Answer] = [_STALE] * len(leases)
        for some_places, held in zip(places, self._server.run_all(calls) if calls else [], strict=True):
            for at, is_held in zip(some_places, held, strict=True):
                if is_held:
                    answers[at] = _DONE
        return answers

    def held(self, holder: str) -> list[Handout]:
        found: list[tuple[int, int, str, int, int, Handout]] = []
        names = self._sweeper.queues()
        asked_at = self._server.clock.monotonic()
        for queue in names:
            lane, entry_id = b"", b""
            while True:
                now, lane, entry_id, *rows = self._server.run(
                    Script.named("held"), [self._keys.meta(queue)], [self._server.given, holder, lane, entry_id]
                )
                for own_lane, own_id, delivered, fields in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True):
                    name = own_lane.decode()
                    age = (now - delivered) / 1000
                    each = handout(queue, name, own_id, fields, holder, self._retention.visibility_timeout, asked_at, age)
                    found.append((delivered, names.index(queue), "", LANES.index(name), len(found), each))
                if not lane:
                    break
        return [each for *_, each in sorted(found, key=lambda row: row[:5])]

    def mark_started(self, lease: Lease) -> Answer:
        lane, entry_id, _ = split_token(lease.token)
        is_held = self._server.run(Script.named("mark"), [self._keys.meta(lease.queue)], [lease.holder, lane, entry_id])
        return _DONE if is_held else _STALE

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        return self._of_lanes("unclaim", [], leases)

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        now = self.now()
        names = self._sweeper.queues() if queue is None else [queue]
        found = [_held_claim(name, key, self._server.command("GET", self._keys.claim(name, key))) for name in names]
        return [each for each in found if each is not None and each.stands(now)]

    def free_claim(self, queue: str, key: str) -> bool:
        held = _held_claim(queue, key, self._server.command("GETDEL", self._keys.claim(queue, key)))
        return held is not None and held.stands(self.now())

    def sweep(self) -> Swept:
        return self._sweeper.sweep()

    # ------------------------------------------------------------ operators

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        names = sorted({*self._sweeper.known_queues(), *self._registered} if queues is None else set(queues))
        script = Script.named("depths")
        counted = self._server.run_all([Call(script, [self._keys.meta(name)], [self._server.given]) for name in names])
        return [
            QueueDepth(name, ready, leased, delayed, dead, None if age < 0 else age / 1000)
            for name, (ready, leased, delayed, dead, age) in zip(names, counted, strict=True)
            if queues is not None or ready or leased or delayed or dead
        ]

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        total = 0
        while removed := self._server.run(Script.named("purge"), [self._keys.meta(queue), self._keys.names], []):
            total += removed
        return total + (self.purge_dead_letters(queue) if dead_letters else 0)

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
        return self._dead.replay(queue, limit, since, ids, delay, dry_run)

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        return self._dead.purge(queue, limit, since, ids)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for intake in self._intakes:
                intake.close()
            self._server.detach()


def _claims(messages: Sequence[Message], place: Mapping[str, int]) -> list[Any]:
    """What messages claim, as `publish.lua` takes it."""
    arguments: list[Any] = []
    for at, message in enumerate(messages, 1):
        if message.claim is not None:
            key, replaces, lasts = message.claim
            ends = "" if lasts is None else max(1, round(lasts * 1000))
            arguments += (at, place[message.queue], key, message.id, "1" if replaces else "", ends)
    return arguments


def _held_claim(queue: str, key: str, value: bytes | None) -> HeldClaim | None:
    """A claim as `publish.lua` keeps it; None for what somebody else wrote."""
    if value is None:
        return None
    try:
        owner, since, until, count, kept = msgpack.unpackb(value)
        duplicates = [Duplicate(task_id, at / 1000) for task_id, at in zip(kept[::2], kept[1::2], strict=True)]
        return HeldClaim(queue, key, owner, since / 1000, until / 1000 if until else None, count, tuple(duplicates))
    except (ValueError, TypeError):
        return None


def _shortest(messages: Sequence[Message], queues: Sequence[str]) -> list[int | str]:
    """For each queue the shortest visibility timeout among its messages, ms: what a sweep must look for."""
    shortest: dict[str, float] = {}
    for message in messages:
        if message.visibility_timeout is not None:
            shortest[message.queue] = min(shortest.get(message.queue, message.visibility_timeout), message.visibility_timeout)
    return [round(shortest[queue] * 1000) if queue in shortest else "" for queue in queues]


def _runs(messages: Sequence[Message], place: Mapping[str, int]) -> list[Any]:
    """The messages as `publish.lua` takes them."""
    arguments: list[Any] = []
    before: tuple[Any, ...] = ()
    start = 0
    for message in messages:
        delay = round(message.delay * 1000) if message.delay > 0 else 0
        way = (place[message.queue], clamp_priority(message.priority), delay)
        if way != before:
            before, start = way, len(arguments) + 3
            arguments += (*way, 0)
        arguments[start] += 1
        visibility = "" if message.visibility_timeout is None else round(message.visibility_timeout * 1000)
        arguments += (
            f"{visibility}\n{'1' if message.is_chosen_id else ''}\n0\n{message.id}",
            message.sig or b"",
            message.body,
        )
    return arguments
