"""Whatever happens: the children that should live do, or the supervisor has failed; never two of one id."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stem_actors.supervision import (
    ActorContext,
    Backoff,
    ChildExited,
    ChildRestarted,
    ChildSpec,
    ChildStarted,
    Event,
    Intensity,
    IntensityExceeded,
    Normal,
    Restart,
    Shutdown,
    StemActor,
    Stepper,
    Strategy,
    actor,
    start_tree,
    supervisor,
)
from stem_actors.testing import ManualClock

PATIENCE = 30.0
INTENSITY = Intensity(3, 5.0)
BACKOFF = Backoff(initial=0.5, maximum=4.0)
LEAVES = ("a", "b", "c", "d", "e")
INNER = "inner"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("stem.supervision")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


@dataclass(frozen=True, slots=True)
class Crash:
    """Raise."""


@dataclass(frozen=True, slots=True)
class Leave:
    """End by yourself."""


@dataclass
class World:
    """What the subjects have in common. It counts bodies, which no supervisor sees."""

    bodies: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    failing_starts: Counter[str] = field(default_factory=Counter)
    failing_stops: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, name: str) -> None:
        with self.lock:
            self.bodies[name] += 1
            self.most[name] = max(self.most[name], self.bodies[name])

    def leave(self, name: str) -> None:
        with self.lock:
            self.bodies[name] -= 1


class Subject(StemActor):
    """Fails where the world says so."""

    def __init__(self, context: ActorContext, world: World) -> None:
        super().__init__(context)
        self.world = world
        world.enter(self.name)

    def on_start(self) -> None:
        if self.world.failing_starts[self.name] > 0:
            self.world.failing_starts[self.name] -= 1
            raise ValueError("start")

    def on_receive(self, message: Any) -> Any:
        match message:
            case Crash():
                raise MemoryError
            case Leave():
                self.stop()

    def on_stop(self) -> None:
        if self.name in self.world.failing_stops:
            self.world.failing_stops.discard(self.name)
            raise SystemExit

    def run_end(self) -> None:
        self.world.leave(self.name)
        super().run_end()


def family(
    world: World, restarts: Sequence[Restart], nested: Strategy, intensity: Intensity, backoff: Backoff
) -> list[ChildSpec]:
    """Leaf a, a supervisor over b, c and d, and leaf e."""

    def leaf(name: str) -> ChildSpec:
        start = actor(lambda context: Subject(context, world))
        return ChildSpec(name, start, restarts[LEAVES.index(name)], backoff=backoff, intensity=intensity)

    inner = ChildSpec(INNER, supervisor([leaf(name) for name in "bcd"], nested), backoff=backoff, intensity=intensity)
    return [leaf("a"), inner, leaf("e")]


class Supervision(RuleBasedStateMachine):
    """A tree on the stepper, in which everything happens at every moment."""

    @initialize(
        restarts=st.lists(st.sampled_from(Restart), min_size=5, max_size=5),
        outer=st.sampled_from(Strategy),
        nested=st.sampled_from(Strategy),
        seed=st.integers(0, 1000),
    )
    def start(self, restarts: list[Restart], outer: Strategy, nested: Strategy, seed: int) -> None:
        self.world = World()
        self.events: list[tuple[float, Event]] = []
        self.clock = ManualClock(monotonic=0.0)
        self.restarts = dict(zip(LEAVES, restarts, strict=True))
        self.was_stopped = False
        specs = family(self.world, restarts, nested, INTENSITY, BACKOFF)
        self.stepper = Stepper(specs, outer, clock=self.clock, seed=seed, on_event=self.hear)

    def hear(self, event: Event) -> None:
        self.events.append((self.clock.monotonic(), event))

    @rule(child=st.sampled_from(LEAVES), message=st.sampled_from([Crash(), Leave()]))
    def tell(self, child: str, message: object) -> None:
        self.stepper.tell(child, message)

    @rule(child=st.sampled_from([*LEAVES, INNER]))
    def kill(self, child: str) -> None:
        self.stepper.directory.kill(child)

    @rule(child=st.sampled_from(LEAVES), times=st.integers(1, 5))
    def let_starts_fail(self, child: str, times: int) -> None:
        self.world.failing_starts[child] = times

    @rule(child=st.sampled_from(LEAVES))
    def let_a_stop_fail(self, child: str) -> None:
        self.world.failing_stops.add(child)

    @rule(steps=st.integers(1, 12))
    def go_on_a_little(self, steps: int) -> None:
        for _ in range(steps):
            self.stepper.step()

    @rule(seconds=st.floats(0.0, 3.0))
    def go_on(self, seconds: float) -> None:
        self.stepper.run(seconds)

    @precondition(lambda self: not self.was_stopped)
    @rule(is_meant=st.integers(0, 9).map(lambda dice: dice == 0))
    def stop(self, is_meant: bool) -> None:
        """Stop the tree, but not in most runs: they would be short."""
        if is_meant:
            self.was_stopped = True
            self.stepper._life.stop()

    @rule()
    def settle(self) -> None:
        """Let it come to rest, then compare with what should be."""
        self.stepper.run(40.0)
        if self.stepper.reason is None:
            assert not self.was_stopped
            for child in LEAVES:
                assert self.world.bodies[child] == self.stepper.directory.is_alive(child)
                if self.should_live(child):
                    assert self.stepper.directory.is_alive(child), child
            assert self.stepper.directory.is_alive(INNER)
        else:
            self.check_the_end()

    def should_live(self, child: str) -> bool:
        reasons = [event.reason for _, event in self.events if isinstance(event, ChildExited) and event.child_id == child]
        match self.restarts[child]:
            case Restart.PERMANENT:
                return True
            case Restart.TRANSIENT:
                return Normal() not in reasons
            case Restart.TEMPORARY:
                return reasons == []

    def check_the_end(self) -> None:
        assert self.world.bodies.total() == 0
        assert self.stepper.directory.ids() == frozenset()
        match self.stepper.reason:
            case Shutdown():
                assert self.was_stopped
            case IntensityExceeded(child_id):
                own = [
                    at
                    for at, event in self.events
                    if isinstance(event, ChildRestarted) and event.child_id == child_id == event.cause
                ]
                end = max(at for at, event in self.events if isinstance(event, ChildExited) and event.child_id == child_id)
                # restarts are told of when they happen, up to a backoff after they were counted
                assert len([at for at in own if at > end - INTENSITY.period]) >= INTENSITY.restarts - 1
            case other:
                raise AssertionError(other)

    @invariant()
    def never_two_of_one_id(self) -> None:
        if hasattr(self, "world"):
            assert all(count <= 1 for count in self.world.most.values()), self.world.most

    @invariant()
    def lives_are_numbered_and_told_in_order(self) -> None:
        if hasattr(self, "world"):
            for child in LEAVES:
                told = [event for _, event in self.events if isinstance(event, ChildStarted) and event.child_id == child]
                ended = [event for _, event in self.events if isinstance(event, ChildExited) and event.child_id == child]
                assert len(told) <= len(ended) + 1

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.settle()
            if self.stepper.reason is None:
                assert self.stepper.stop() == Shutdown()
            assert self.world.bodies.total() == 0


Supervision.TestCase.settings = settings(max_examples=120, stateful_step_count=30)
TestSupervision = Supervision.TestCase


ACTS = st.tuples(st.sampled_from([*LEAVES, INNER]), st.sampled_from(["crash", "leave", "kill", "start"]))


@settings(max_examples=25)
@given(outer=st.sampled_from(Strategy), nested=st.sampled_from(Strategy), acts=st.lists(ACTS, max_size=20))
def test_threads_too_come_to_rest_with_all_children_alive_and_never_two_of_one(
    outer: Strategy, nested: Strategy, acts: list[tuple[str, str]]
) -> None:
    world = World()
    changed = threading.Condition()

    def hear(event: Event) -> None:
        with changed:
            changed.notify_all()

    backoff = Backoff(0.001, 0.002, jitter=0.0)
    specs = family(world, [Restart.PERMANENT] * 5, nested, Intensity(1000, 10.0), backoff)
    tree = start_tree(specs, outer, on_event=hear, tick=0.05)
    try:
        for child, act in acts:
            match act:
                case "crash":
                    tree.tell(child, Crash()) if child != INNER else tree.directory.kill(child)
                case "leave":
                    tree.tell(child, Leave()) if child != INNER else tree.directory.kill(child)
                case "kill":
                    tree.directory.kill(child)
                case _:
                    world.failing_starts[child] += 1

        def all_answer() -> bool:
            return all(tree.directory.is_alive(child) for child in LEAVES) and world.failing_starts.total() == 0

        for child in LEAVES:  # a start that is to fail needs one
            tree.directory.kill(child) if world.failing_starts[child] else None
        world.failing_starts.pop(INNER, None)
        with changed:
            assert changed.wait_for(lambda: all_answer() or tree.wait(0) is not None, PATIENCE)
        assert tree.wait(0) is None
    finally:
        assert tree.stop(PATIENCE) == Shutdown()
    assert world.bodies.total() == 0
    assert all(count <= 1 for count in world.most.values()), world.most
