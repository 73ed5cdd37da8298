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
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import (
    Answer,
    Broker,
    ControlBus,
    Done,
    Intake,
    Message,
    QueueDepth,
    ResultBackend,
    Stores,
    Swept,
)
from stem_actors.supervision.stepper import Turns
from stem_actors.testing.forwarding import ForwardingBroker, ForwardingIntake
from stem_actors.testing.journal import Journal, Who

__all__ = ["Fate", "Network", "SimulatedServer", "WrapBroker"]

S = TypeVar("S")
T = TypeVar("T")
_LISTENS_FOR = 1.0  # seconds; a read is made short so that its actor can be stopped, and here whatever it is sent ends its rest
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
    """Stands in for the condition of a space: there is one thread, and who would wait at it rests instead."""

    def __init__(self, turns: Turns) -> None:
        self.notify_all = turns.news

    def __enter__(self) -> _Bell:
        return self

    def __exit__(self, *_: object) -> None:
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
        self.space = Space(clock, cast(threading.Condition, _Bell(turns)))
        self.separate_results = separate_results
        self.leased: dict[str, tuple[str, int | None, int | None]] = {}  # every lease ever: task, attempt, delivery count
        self._has_results = not settings.results_are_off
        self._result_space = Space(clock, cast(threading.Condition, _Bell(turns))) if separate_results else self.space
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
            results=cast(ResultBackend, _Results(link, results)) if self._has_results else None,
            revocations=link.carried(self._memory.revocations(), "list_since", "prune_expired"),
            pauses=link.carried(self._memory.pauses(), "paused"),
            locks=self._memory.locks(),
            rate_limits=link.carried(self._memory.rate_limits(), "acquire", "renew", "release"),
            heartbeats=self._memory.heartbeats(),
            control=cast(ControlBus, _Control(link, self._memory.control())),
            settles_results=self._has_results and not self.separate_results,
            names={"broker": "simulated"},
        )

    # ------------------------------------------------------------ looked at from outside

    def next_ready(self, queues: Sequence[str]) -> float | None:
        """When something is ready in these queues or due in any, by the clock's `monotonic()`; None: nothing is on its way."""
        ready, delayed = self.space.ready, self.space.delayed
        if any(waiting for queue in queues if queue in ready for waiting in ready[queue].values()):
            return float("-inf")
        return delayed[0][0] - self.clock.now() + self.clock.monotonic() if delayed else None

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

    def over(self, name: str, ask: Callable[..., T]) -> Callable[..., T]:
        """`ask`, over the network."""
        return lambda *arguments, **named: self.call(name, lambda: ask(*arguments, **named))

    def carried(self, store: S, *calls: str) -> S:
        """A store of which these calls go over the network."""
        return cast(S, _Carried(self, store, calls))


class SimulatedBroker(ForwardingBroker):
    """A `Broker`, one process's. What is only for people goes straight through."""

    def __init__(self, link: _Link, broker: Broker) -> None:
        super().__init__(broker)
        self._link = link
        self._published: dict[tuple[str, int], list[int]] = {}

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        journal, who = self._link.server.journal, self._link.who
        key = sender, number
        if key not in self._published:  # else it is tried again, which is the same call
            described = [(message.id, _message(message)) for message in messages]
            self._published[key] = [journal.invoke("enqueue", who, task_id, **detail) for task_id, detail in described]
        try:
            others = self._link.call("publish", lambda: self.inner.publish(sender, number, messages))
        except BrokerUnavailable:
            raise  # nobody knows, as long as it is not tried again
        except StemError as error:
            for call, message in zip(self._published.pop(key), messages, strict=True):
                journal.end("enqueue", "fail", call, who, message.id, error=type(error).__name__)
            raise
        for call, message in zip(self._published.pop(key), messages, strict=True):
            journal.end("enqueue", "ok", call, who, message.id)
        return others

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        return self._link.call("end_claims", lambda: self.inner.end_claims(leases))

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        return SimulatedIntake(self._link, self.inner.open_intake(queues, holder), queues)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        return self._link.call("settle", lambda: self._settle(settlements))

    def _settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        described = [{**self._lease(each.lease), **_settlement(each)} for each in settlements]
        return self._ask("settle", described, lambda: self.inner.settle(settlements))

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        described = [self._lease(lease) for lease in leases]
        return self._link.call("extend", lambda: self._ask("renew", described, lambda: self.inner.extend(leases)))

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
        swept = self.inner.sweep()
        if swept.promoted or swept.reclaimed or swept.poisoned:
            self._link.server.journal.happened(
                "reclaim", self._link.who, promoted=swept.promoted, reclaimed=swept.reclaimed, poisoned=swept.poisoned
            )
        return swept

    def _lease(self, lease: Lease) -> dict[str, Any]:
        token = str(lease.token)
        task_id, attempt, delivery_count = self._link.server.leased.get(token, (None, None, None))
        return {"task_id": task_id, "attempt": attempt, "delivery_count": delivery_count, "lease": token, "queue": lease.queue}

    def held(self, holder: str) -> list[Handout]:
        return self._link.call("held", lambda: self.inner.held(holder))

    def mark_started(self, lease: Lease) -> Answer:
        return self._link.call("mark_started", lambda: self.inner.mark_started(lease))

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        return self._link.call("depths", lambda: self.inner.depths(queues))


class SimulatedIntake(ForwardingIntake):
    """An `Intake` whose actor rests where another would block."""

    def __init__(self, link: _Link, intake: Intake, queues: Sequence[str]) -> None:
        super().__init__(intake)
        self._link = link
        self._queues = queues

    def receive(self, limit: int, wait: float) -> list[Handout]:
        handouts = self._link.call("receive", lambda: self._receive(limit), may_repeat=False)
        if not handouts and wait > 0:
            server = self._link.server
            server.turns.rest(wait, lambda: server.next_ready(self._queues))
        return handouts

    def _receive(self, limit: int) -> list[Handout]:
        server = self._link.server
        handouts = self.inner.receive(limit, 0.0)
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


class _Carried:
    """A store, one process's: `calls` go over the network, all else straight through."""

    def __init__(self, link: _Link, store: Any, calls: Sequence[str]) -> None:
        self._store = store
        for name in calls:
            setattr(self, name, link.over(name, getattr(store, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Results(_Carried):
    """A `ResultBackend` whose waiting lets virtual time pass."""

    def __init__(self, link: _Link, results: ResultBackend) -> None:
        super().__init__(link, results, ["set_many", "announce", "purge_expired"])
        self._network = link.server.network

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        found: dict[str, TaskRecord] = {}

        def look() -> bool:
            found.update(self._store.wait(task_ids, 0.0))
            return len(found) == len(set(task_ids))

        self._network.wait_for(look, timeout)
        return found


class _Control(_Carried):
    """A `ControlBus` whose reader rests where another would block."""

    def __init__(self, link: _Link, bus: ControlBus) -> None:
        super().__init__(link, bus, ["cursor"])
        self._link = link

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        found: tuple[list[bytes], Any] = self._link.call("pull", lambda: self._store.pull(channels, cursor, limit))
        if not found[0] and wait > 0:
            space = self._link.server.space

            def there() -> float | None:
                is_there = any(number > cursor and channel in channels for number, channel, _, _ in space.control)
                return float("-inf") if is_there else None

            self._link.server.turns.rest(max(wait, _LISTENS_FOR), there)
        return found


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
