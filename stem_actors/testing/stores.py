"""The stores of a simulation: those in memory, behind a network that loses, repeats and delays what goes over it.

Owns the server that all processes share, and each process's way to it. What goes wrong when is `faults.py`'s business; what
happened at the server goes into the journal as it was, also where nobody got to hear of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, TypeVar, assert_never, cast

from stem_actors.adapters.memory import MemorySpace
from stem_actors.adapters.memory.space import Space
from stem_actors.clock import Clock
from stem_actors.codecs.msgpack import decode_envelope
from stem_actors.config import Settings
from stem_actors.errors import BrokerUnavailable, MalformedMessage, StemError
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.lapse import Retention
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.rate import Limit
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import (
    Answer,
    Broker,
    ControlBus,
    DeadLetterPage,
    DeadTask,
    Done,
    Intake,
    Message,
    QueueDepth,
    RateLimiter,
    RecordPage,
    ResultBackend,
    Revocation,
    RevokeStore,
    Stores,
    Swept,
)
from stem_actors.supervision.stepper import Turns
from stem_actors.testing.journal import Journal, Who

__all__ = ["Fate", "Network", "SimulatedServer", "WrapBroker"]

T = TypeVar("T")
WrapBroker = Callable[[Broker], Broker]
"""Puts something in front of the broker, in each process: an adapter or a fault of one's own to try."""


class Fate(Enum):
    """What becomes of one call over the network."""

    ANSWERED = "answered"
    REQUEST_LOST = "request lost"
    REPLY_LOST = "reply lost"
    REPEATED = "repeated"  # by a client library that got no reply the first time
    LATE = "late"  # the reply is


class Network(Protocol):
    """What decides over calls, and what waiting in vain comes to."""

    def fate_of(self, who: Who, call: str) -> Fate: ...

    def lateness(self) -> float:
        """Seconds by which a late reply is late."""
        ...

    def wait_for(self, look: Callable[[], T], timeout: float) -> T:
        """Let the simulation go on until `look()` returns something true, or `timeout` virtual seconds; not for actors."""
        ...


class _Bell:
    """Stands in for the condition of a space: there is one thread, and nobody waits at it."""

    def __enter__(self) -> _Bell:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def notify_all(self) -> None:
        pass


class SimulatedServer:
    """What is kept while processes come and go. `separate_results`: on a server of their own."""

    def __init__(
        self,
        turns: Turns,
        clock: Clock,
        settings: Settings,
        network: Network,
        journal: Journal,
        separate_results: bool = False,
        wrap: WrapBroker | None = None,
    ) -> None:
        self.turns = turns
        self.clock = clock
        self.network = network
        self.journal = journal
        self.space = Space(clock, cast(threading.Condition, _Bell()))
        self.separate_results = separate_results
        self.leased: dict[str, tuple[str, int | None, int | None]] = {}  # every lease ever: task, attempt, delivery count
        self._has_results = not settings.results_are_off
        self._result_space = Space(clock, cast(threading.Condition, _Bell())) if separate_results else self.space
        self._settings = settings
        ttl = settings.result_ttl if self._has_results and not separate_results else None
        self._retention = Retention(settings.visibility_timeout, settings.max_deliveries, settings.dead_letter_ttl, ttl)
        self._wrap = wrap or (lambda broker: broker)
        self._memory = MemorySpace(self.space)
        self._direct_results = MemorySpace(self._result_space).results(settings.result_ttl)

    def stores_for(self, who: Who) -> Stores:
        """The way of one process to the server."""
        link = _Link(self, who)
        broker = SimulatedBroker(link, self._wrap(self._memory.broker(self._retention)))
        results = MemorySpace(self._result_space).results(self._settings.result_ttl)
        return Stores(
            broker=broker,
            results=SimulatedResults(link, results) if self._has_results else None,
            revocations=_Revocations(link, self._memory.revocations()),
            locks=self._memory.locks(),
            rate_limits=_RateLimits(link, self._memory.rate_limits()),
            heartbeats=self._memory.heartbeats(),
            control=_Control(link, self._memory.control()),
            settles_results=self._has_results and not self.separate_results,
            names={"broker": "simulated"},
        )

    # ------------------------------------------------------------ looked at from outside

    def waits(self, queues: Sequence[str]) -> bool:
        """Whether anything is ready in these queues, or due."""
        ready = self.space.ready
        if any(waiting for queue in queues if queue in ready for waiting in ready[queue].values()):
            return True
        return bool(self.space.delayed) and self.space.delayed[0][0] <= self.clock.now()

    @property
    def is_empty(self) -> bool:
        """Whether no task waits, is delayed or held."""
        space = self.space
        return not (
            space.leased or space.delayed or any(waiting for levels in space.ready.values() for waiting in levels.values())
        )

    def holds_nothing_but(self, served: Sequence[str]) -> bool:
        """Whether something waits, and all of it in other queues than those that are served."""
        space = self.space
        if space.leased or space.delayed:
            return False
        waiting = {queue for queue, levels in space.ready.items() if any(levels.values())}
        return bool(waiting) and waiting.isdisjoint(served)

    @property
    def next_delayed(self) -> float | None:
        """When the first delayed message is due, seconds since the epoch, if nothing is ready or held."""
        space = self.space
        if space.leased or any(waiting for levels in space.ready.values() for waiting in levels.values()):
            return None
        return space.delayed[0][0] if space.delayed else None

    def unfinished(self) -> list[str]:
        """The ids of what waits, is delayed or held."""
        space = self.space
        waiting = [message.id for levels in space.ready.values() for level in levels.values() for message in level]
        return [*waiting, *(message.id for _, message in space.delayed), *(held.message.id for held in space.leased.values())]

    def record(self, task_id: str) -> TaskRecord | None:
        return self._direct_results.get(task_id)

    def dead_letter_reason(self, task_id: str) -> str | None:
        """Why a task was set aside; None when it was not."""
        for letters in self.space.dead.values():
            for letter in letters:
                if letter.message.id == task_id:
                    return letter.reason
        return None


class _Link:
    """The way of one process to the server."""

    def __init__(self, server: SimulatedServer, who: Who) -> None:
        self.server = server
        self.who = who

    def call(self, name: str, effect: Callable[[], T], may_repeat: bool = True) -> T:
        """Ask the server for something; what becomes of it is up to the network."""
        network = self.server.network
        fate = network.fate_of(self.who, name)
        if fate is Fate.REQUEST_LOST:
            raise BrokerUnavailable(f"{name}: no connection")
        answer = effect()
        match fate:
            case Fate.REPEATED if may_repeat:
                answer = effect()
            case Fate.REPLY_LOST:
                raise BrokerUnavailable(f"{name}: the connection was lost before the reply came")
            case Fate.LATE:
                self.server.turns.hold(network.lateness())
            case _:
                pass
        return answer


class SimulatedBroker:
    """A `Broker`, one process's."""

    def __init__(self, link: _Link, broker: Broker) -> None:
        self._link = link
        self._broker = broker
        self._published: dict[tuple[str, int], list[int]] = {}

    # ------------------------------------------------------------ journalled

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> None:
        journal, who = self._link.server.journal, self._link.who
        key = sender, number
        if key not in self._published:  # else it is tried again, which is the same call
            described = [(message.id, _message(message)) for message in messages]
            self._published[key] = [journal.invoke("enqueue", who, task_id, **detail) for task_id, detail in described]
        try:
            self._link.call("publish", lambda: self._broker.publish(sender, number, messages))
        except BrokerUnavailable:
            raise  # nobody knows, as long as it is not tried again
        except StemError as error:
            for call, message in zip(self._published.pop(key), messages, strict=True):
                journal.end("enqueue", "fail", call, who, message.id, error=type(error).__name__)
            raise
        for call, message in zip(self._published.pop(key), messages, strict=True):
            journal.end("enqueue", "ok", call, who, message.id)

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        return SimulatedIntake(self._link, self._broker.open_intake(queues, holder), queues)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        return self._link.call("settle", lambda: self._settle(settlements))

    def _settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        described = [{**self._lease(each.lease), **_settlement(each)} for each in settlements]
        return self._ask("settle", described, lambda: self._broker.settle(settlements))

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        described = [self._lease(lease) for lease in leases]
        return self._link.call("extend", lambda: self._ask("renew", described, lambda: self._broker.extend(leases)))

    def _ask(self, verb: str, described: Sequence[Mapping[str, Any]], ask: Callable[[], list[Answer]]) -> list[Answer]:
        journal, who = self._link.server.journal, self._link.who
        calls = [journal.invoke(verb, who, **fields) for fields in described]
        try:
            answers = ask()
        except BaseException as error:
            for call, fields in zip(calls, described, strict=True):
                journal.end(verb, "info", call, who, **fields, error=type(error).__name__)
            raise
        for call, fields, answer in zip(calls, described, answers, strict=True):
            if isinstance(answer, Done):
                journal.end(verb, "ok", call, who, **fields)
            else:
                journal.end(verb, "fail", call, who, **fields, answer=type(answer).__name__.lower())
        return answers

    def sweep(self) -> Swept:
        return self._link.call("sweep", self._sweep)

    def _sweep(self) -> Swept:
        swept = self._broker.sweep()
        if swept.promoted or swept.reclaimed or swept.poisoned:
            self._link.server.journal.happened(
                "reclaim", self._link.who, promoted=swept.promoted, reclaimed=swept.reclaimed, poisoned=swept.poisoned
            )
        return swept

    def _lease(self, lease: Lease) -> dict[str, Any]:
        token = str(lease.token)
        task_id, attempt, delivery_count = self._link.server.leased.get(token, (None, None, None))
        return {"task_id": task_id, "attempt": attempt, "delivery_count": delivery_count, "lease": token, "queue": lease.queue}

    # ------------------------------------------------------------ passed on

    def held(self, holder: str) -> list[Handout]:
        return self._link.call("held", lambda: self._broker.held(holder))

    def mark_started(self, lease: Lease) -> Answer:
        return self._link.call("mark_started", lambda: self._broker.mark_started(lease))

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        return self._link.call("depths", lambda: self._broker.depths(queues))

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        return self._broker.purge(queue, dead_letters)

    def dead_letters(self, queue: str, limit: int = 50, offset: int = 0, since: float | None = None) -> DeadLetterPage:
        return self._broker.dead_letters(queue, limit, offset, since)

    def dead_letter(self, queue: str, task_id: str) -> DeadTask | None:
        return self._broker.dead_letter(queue, task_id)

    def replay_dead_letters(
        self,
        queue: str,
        limit: int = 50,
        since: float | None = None,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
    ) -> list[DeadTask]:
        return self._broker.replay_dead_letters(queue, limit, since, ids, delay, dry_run)

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        return self._broker.purge_dead_letters(queue, limit, since, ids)

    def now(self) -> float:
        return self._broker.now()

    def close(self) -> None:
        self._broker.close()


class SimulatedIntake:
    """An `Intake` whose actor rests where another would block."""

    def __init__(self, link: _Link, intake: Intake, queues: Sequence[str]) -> None:
        self._link = link
        self._intake = intake
        self._queues = queues

    def receive(self, limit: int, wait: float) -> list[Handout]:
        handouts = self._link.call("receive", lambda: self._receive(limit), may_repeat=False)
        if not handouts and wait > 0:
            server = self._link.server
            server.turns.rest(wait, lambda: server.waits(self._queues))
        return handouts

    def _receive(self, limit: int) -> list[Handout]:
        server = self._link.server
        handouts = self._intake.receive(limit, 0.0)
        for handout in handouts:
            token, state = str(handout.lease.token), handout.state
            server.leased[token] = handout.id, state and state.attempt, state and state.delivery_count
            server.journal.happened(
                "deliver",
                self._link.who,
                handout.id,
                lease=token,
                attempt=state and state.attempt,
                delivery_count=state and state.delivery_count,
                queue=handout.lease.queue,
                deaths=list(state.deaths) if state else [],
                lapses=state.lapses if state else 0,
                visibility=handout.lease.visibility,
            )
        return handouts

    def interrupt(self) -> None:
        """What interrupts a wait is sent to the actor, whose rest that ends."""

    def close(self) -> None:
        self._intake.close()


class SimulatedResults:
    """A `ResultBackend`, one process's."""

    def __init__(self, link: _Link, results: ResultBackend) -> None:
        self._link = link
        self._results = results

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        return self._link.call("set_many", lambda: self._results.set_many(records))

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        return self._link.call("announce", lambda: self._results.announce(records))

    def get(self, task_id: str) -> TaskRecord | None:
        return self._results.get(task_id)

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        found: dict[str, TaskRecord] = {}

        def look() -> bool:
            found.update(self._results.wait(task_ids, 0.0))
            return len(found) == len(set(task_ids))

        self._link.server.network.wait_for(look, timeout)
        return found

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        return self._results.list_records(state, queue, limit, offset)

    def purge_expired(self) -> int:
        return self._link.call("purge_expired", self._results.purge_expired)

    def close(self) -> None:
        self._results.close()


class _Revocations:
    def __init__(self, link: _Link, store: RevokeStore) -> None:
        self._link = link
        self._store = store

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        return self._store.upsert_all(revocations)

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        return self._link.call("list_since", lambda: self._store.list_since(version, limit))

    def prune_expired(self) -> int:
        return self._link.call("prune_expired", self._store.prune_expired)

    def close(self) -> None:
        self._store.close()


class _RateLimits:
    def __init__(self, link: _Link, limiter: RateLimiter) -> None:
        self._link = link
        self._limiter = limiter

    def acquire(self, asked: Sequence[Sequence[Limit]]) -> list[float | None]:
        return self._link.call("acquire", lambda: self._limiter.acquire(asked))

    def close(self) -> None:
        self._limiter.close()


class _Control:
    def __init__(self, link: _Link, bus: ControlBus) -> None:
        self._link = link
        self._bus = bus

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        self._bus.send(channel, message, ttl)

    def cursor(self, channels: Sequence[str]) -> Any:
        return self._link.call("cursor", lambda: self._bus.cursor(channels))

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        found = self._link.call("pull", lambda: self._bus.pull(channels, cursor, limit))
        if not found[0] and wait > 0:
            space = self._link.server.space
            self._link.server.turns.rest(
                wait, lambda: any(number > cursor and channel in channels for number, channel, _, _ in space.control)
            )
        return found

    def close(self) -> None:
        self._bus.close()


# ---------------------------------------------------------------- as the journal has it


def _message(message: Message) -> dict[str, Any]:
    try:
        envelope = decode_envelope(message.body, max_bytes=len(message.body))
    except MalformedMessage:
        return {"queue": message.queue, "priority": message.priority, "delay": message.delay}
    return {
        "task": envelope.name,
        "queue": message.queue,
        "priority": message.priority,
        "delay": message.delay,
        "max_retries": envelope.max_retries,
        "expires_at": envelope.expires_at,
    }


def _settlement(settlement: Settlement) -> dict[str, Any]:
    said = _verdict(settlement.verdict)
    if settlement.state is not None:
        said["deaths"] = list(settlement.state.deaths)
    if settlement.record is not None:
        said["state"] = settlement.record.state.value
    return said


def _verdict(verdict: Verdict) -> dict[str, Any]:
    match verdict:
        case Ack():
            return {"verdict": "ack"}
        case Release():
            return {"verdict": "release"}
        case Defer(delay):
            return {"verdict": "defer", "delay": delay}
        case Retry(delay):
            return {"verdict": "retry", "delay": delay}
        case DeadLetter(reason):
            return {"verdict": "dead-letter", "reason": reason}
        case _:
            assert_never(verdict)
