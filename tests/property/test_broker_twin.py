"""Whatever is done to it, in whatever order: the SQLite broker answers as the memory broker does, which is plain Python."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stem_actors.errors import DuplicateTaskId
from stem_actors.model.delivery import Handout, State
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.model.uniqueness import Claim
from stem_actors.ports import Broker, Intake, Message, ResultBackend, Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import MemoryFabric, SqliteFabric

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # no disk to wait for
QUEUES = ("a", "b")
HOLDERS = ("one", "two")
SUBSCRIPTIONS = (("a",), ("b",), ("a", "b"))
NAMED = ("named-1", "named-2")
UNIQUE_KEYS = ("k", "l")
CLAIMS = (Claim("k"), Claim("l"), Claim("k", replaces=True), Claim("k", lasts=600.0))

delays = st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0])
verdicts: st.SearchStrategy[Verdict] = st.one_of(
    st.just(Ack()),
    st.just(Release()),
    st.builds(Defer, delays),
    st.builds(Retry, delays),
    st.builds(DeadLetter, st.sampled_from(["why", "malformed"]), st.just({"a": [1, None]})),
)


class Pair(NamedTuple):
    """One delivery as the two brokers hand it out."""

    twin: Handout
    real: Handout


class Plan(NamedTuple):
    """How one delivery is to be settled."""

    which: int
    verdict: Verdict
    is_retried: bool
    state: TaskState | None


plans = st.builds(Plan, st.integers(0, 1000), verdicts, st.booleans(), st.sampled_from([None, *TaskState]))


class BrokerTwin(RuleBasedStateMachine):
    """Does everything to both, and compares every answer and all that can be seen afterwards."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stem-twin-", dir=IN_MEMORY))
        self.clock = ManualClock()
        fabrics = MemoryFabric(self.folder), SqliteFabric(self.folder)
        self.twin, self.real = (fabric.open(clock=self.clock) for fabric in fabrics)
        self.intakes: dict[tuple[str, Sequence[str]], tuple[Intake, Intake]] = {}
        self.pairs: list[Pair] = []
        self.published: list[tuple[str, int, list[Message]]] = []
        self.serial = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.twin.close()
            self.real.close()
            shutil.rmtree(self.folder)

    def both(self, question: Callable[[Stores], Any]) -> Any:
        """The answer of both, which must be one."""
        expected, answer = question(self.twin), question(self.real)
        assert answer == expected
        return answer

    # ------------------------------------------------------------ producers

    @rule(
        parts=st.lists(
            st.tuples(
                st.sampled_from(["a", "a", "b"]),
                st.sampled_from([5, 5, 5, 2, 9, 11]),  # few levels, so that messages meet in one
                delays,
                st.sampled_from([None, None, 4.0, 90.0]),
                st.sampled_from([None, None, None, *NAMED]),
                st.sampled_from([None, None, None, None, *CLAIMS]),
            ),
            min_size=1,
            max_size=8,
        ),
        sender=st.sampled_from(HOLDERS),
    )
    def publish(self, parts: list[tuple[str, int, float, float | None, str | None, Claim | None]], sender: str) -> None:
        messages = [
            Message(name or self.fresh_id(), queue, priority, b"body", delay, visibility, None, name is not None, claim)
            for queue, priority, delay, visibility, name, claim in parts
        ]
        if len({message.id for message in messages}) < len(messages):
            messages = [replace(message, claim=None) for message in messages]  # the names are what is twice
        self.serial += 1
        self.published.append((sender, self.serial, messages))
        self.both(lambda stores: publication(stores.broker, sender, self.serial, messages))

    @precondition(lambda self: self.published)
    @rule(which=st.integers(0, 1000))
    def publish_again(self, which: int) -> None:
        sender, number, messages = self.published[-1 - which % min(3, len(self.published))]
        self.both(lambda stores: publication(stores.broker, sender, number, messages))

    def fresh_id(self) -> str:
        self.serial += 1
        return f"id-{self.serial}"

    # ------------------------------------------------------------ consumers

    @rule(holder=st.sampled_from(HOLDERS), queues=st.sampled_from(SUBSCRIPTIONS), limit=st.sampled_from([0, 1, 3, 8, 50]))
    def receive(self, holder: str, queues: Sequence[str], limit: int) -> None:
        key = (holder, queues)
        if key not in self.intakes:
            self.intakes[key] = (self.twin.broker.open_intake(queues, holder), self.real.broker.open_intake(queues, holder))
        twins, reals = (intake.receive(limit, 0) for intake in self.intakes[key])
        assert list(map(visible, reals)) == list(map(visible, twins))
        self.pairs += map(Pair, twins, reals)

    @precondition(lambda self: self.pairs)
    @rule(some=st.lists(plans, min_size=1, max_size=6))
    def settle(self, some: list[Plan]) -> None:
        batches: tuple[list[Settlement], list[Settlement]] = ([], [])
        for plan in some:
            pair = self.pairs[-1 - plan.which % min(12, len(self.pairs))]
            for handout, batch in zip(pair, batches, strict=True):
                state = handout.state or State()
                record = None if plan.state is None else record_of(handout, state, plan.state)
                batch.append(Settlement(handout.lease, plan.verdict, state.retried() if plan.is_retried else None, record))
        assert self.real.broker.settle(batches[1]) == self.twin.broker.settle(batches[0])

    @precondition(lambda self: self.pairs)
    @rule(count=st.integers(2, 8), verdict=verdicts)
    def settle_alike(self, count: int, verdict: Verdict) -> None:
        self.settle([Plan(which, verdict, False, TaskState.SUCCEEDED) for which in range(min(count, len(self.pairs)))])

    @precondition(lambda self: self.pairs)
    @rule(count=st.integers(1, 8))
    def extend(self, count: int) -> None:
        some = self.pairs[-count:]
        answers = self.real.broker.extend([pair.real.lease for pair in some])
        assert answers == self.twin.broker.extend([pair.twin.lease for pair in some])

    @precondition(lambda self: self.pairs)
    @rule(which=st.integers(0, 5))
    def mark_started(self, which: int) -> None:
        pair = self.pairs[-1 - which % len(self.pairs)]
        assert self.real.broker.mark_started(pair.real.lease) == self.twin.broker.mark_started(pair.twin.lease)

    @precondition(lambda self: self.pairs)
    @rule(count=st.integers(1, 4))
    def end_claims(self, count: int) -> None:
        some = self.pairs[-count:]
        answers = self.real.broker.end_claims([pair.real.lease for pair in some])
        assert answers == self.twin.broker.end_claims([pair.twin.lease for pair in some])

    # ------------------------------------------------------------ time and operators

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 700.0, 3700.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.both(lambda stores: stores.broker.sweep())

    @rule(times=st.sampled_from([1, 6, 18]))
    def sweep_on(self, times: int) -> None:
        for _ in range(times):
            self.clock.advance(1.875)  # nearly what may lie between two sweeps, and whole milliseconds as states store them
            self.both(lambda stores: stores.broker.sweep())

    @rule(queue=st.sampled_from(QUEUES), dead_letters=st.booleans())
    def purge(self, queue: str, dead_letters: bool) -> None:
        self.both(lambda stores: stores.broker.purge(queue, dead_letters))

    @rule(
        queue=st.sampled_from(QUEUES),
        limit=st.integers(0, 3),
        delay=delays,
        is_dry=st.booleans(),
        age=st.sampled_from([None, 10.0]),
    )
    def replay(self, queue: str, limit: int, delay: float, is_dry: bool, age: float | None) -> None:
        since = None if age is None else self.clock.now() - age
        self.both(lambda stores: stores.broker.replay_dead_letters(queue, limit, since, None, delay, is_dry))

    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([None, 0, 1]), names=st.sampled_from([None, NAMED]))
    def purge_dead_letters(self, queue: str, limit: int | None, names: Sequence[str] | None) -> None:
        self.both(lambda stores: stores.broker.purge_dead_letters(queue, limit, None, names))

    @rule(queue=st.sampled_from(QUEUES), key=st.sampled_from(UNIQUE_KEYS))
    def free_claim(self, queue: str, key: str) -> None:
        self.both(lambda stores: stores.broker.free_claim(queue, key))

    @rule()
    def purge_expired_records(self) -> None:
        self.both(lambda stores: results_of(stores).purge_expired())

    # ------------------------------------------------------------ what can be seen

    @invariant()
    def both_look_alike(self) -> None:
        if not hasattr(self, "folder"):
            return
        self.both(sight)


def sight(stores: Stores) -> Any:
    """All that others can see of a broker and its records."""
    held = [visible(handout) for holder in HOLDERS for handout in stores.broker.held(holder)]
    dead = [list(stores.broker.dead_letters(queue).entries) for queue in QUEUES]
    records = sorted(results_of(stores).list_records(limit=1000).items, key=lambda record: record.id)
    claims = [stores.broker.claims(key) for key in UNIQUE_KEYS]
    return stores.broker.depths(), held, dead, records, claims


def publication(broker: Broker, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str] | str:
    try:
        return broker.publish(sender, number, messages)
    except DuplicateTaskId:
        return "duplicate"


def visible(handout: Handout) -> tuple[Any, ...]:
    """All of a hand-out but its token, which every broker draws as it likes."""
    return handout.lease[1:], handout[1:]


def record_of(handout: Handout, state: State, task_state: TaskState) -> TaskRecord:
    return TaskRecord(handout.id, task_state, state.attempt, state.delivery_count, state.replay_count, meta={"queue": "a"})


def results_of(stores: Stores) -> ResultBackend:
    assert stores.results is not None
    return stores.results


BrokerTwin.TestCase.settings = settings(max_examples=settings().max_examples // 2)  # each is a database
TestBrokerTwin = BrokerTwin.TestCase
