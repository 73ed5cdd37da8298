"""The same actors, one message at a time, by a clock advanced by hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from stem_actors.supervision import (
    ActorContext,
    Backoff,
    ChildSpec,
    Crashed,
    Intensity,
    IntensityExceeded,
    Shutdown,
    StartTimeout,
    StemActor,
    Stepper,
    Strategy,
    actor,
    supervisor,
)
from stem_actors.testing import ManualClock
from tests.unit.supervision.actors import Boom, Leave, Note, Probe, Recall, Recorder, spec


@dataclass(frozen=True, slots=True)
class Ball:
    hits: int


class Player(StemActor):
    """Hits the ball back after a second."""

    def __init__(self, context: ActorContext, opponent: str, recorder: Recorder) -> None:
        super().__init__(context)
        self.opponent = opponent
        self.recorder = recorder
        self.held: Ball | None = None

    def on_start(self) -> None:
        self.recorder.note(f"{self.clock.monotonic():.0f} {self.name} starts")

    def on_receive(self, message: Any) -> Any:
        match message:
            case Ball(hits):
                self.recorder.note(f"{self.clock.monotonic():.0f} {self.name} {hits}")
                if hits == 5:
                    raise ValueError("out")
                self.held = message
                self.after(1.0, Recall())
            case Recall():
                assert self.held is not None
                self.tell(self.opponent, Ball(self.held.hits + 1))


def match(recorder: Recorder, seed: int = 0) -> Stepper:
    children = [
        ChildSpec("ping", actor(lambda context: Player(context, "pong", recorder)), backoff=Backoff(2.0, 2.0, jitter=0)),
        ChildSpec("pong", actor(lambda context: Player(context, "ping", recorder)), backoff=Backoff(2.0, 2.0, jitter=0)),
    ]
    return Stepper(children, clock=ManualClock(monotonic=0.0), seed=seed, on_event=recorder)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="stem.supervision")


def test_two_actors_play_by_the_virtual_clock_through_a_restart(recorder: Recorder) -> None:
    stepper = match(recorder)
    stepper.run(0)
    stepper.tell("ping", Ball(1))
    stepper.run(8.0)
    assert recorder.entries == [
        "0 ping starts",
        "0 pong starts",
        "0 ping 1",
        "1 pong 2",
        "2 ping 3",
        "3 pong 4",
        "4 ping 5",
        "6 ping starts",
    ]
    assert recorder.exits("ping") == [Crashed("ValueError", "out")]
    assert stepper.clock.monotonic() == 8.0
    assert stepper.stop() == Shutdown()


class Crowd(StemActor):
    def __init__(self, context: ActorContext, recorder: Recorder) -> None:
        super().__init__(context)
        self.recorder = recorder

    def on_receive(self, message: Any) -> Any:
        self.recorder.note(f"{self.name} {message.text}")


def test_the_seed_alone_decides_the_order() -> None:
    def order(seed: int) -> list[str]:
        recorder = Recorder()
        names = ["a", "b", "c", "d"]
        specs = [ChildSpec(name, actor(lambda context: Crowd(context, recorder))) for name in names]
        stepper = Stepper(specs, clock=ManualClock(), seed=seed)
        stepper.run(0)
        for name in names:
            stepper.tell(name, Note("x"))
            stepper.tell(name, Note("y"))
        stepper.run(5)
        assert stepper.stop() == Shutdown()
        return recorder.entries

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


def test_it_supervises_with_intensity_and_nesting_like_threads_do(recorder: Recorder) -> None:
    leaf = spec("leaf", recorder, intensity=Intensity(3, 10.0), backoff=Backoff(1.0, 1.0, jitter=0))
    inner = ChildSpec("inner", supervisor([leaf], Strategy.ONE_FOR_ALL), intensity=Intensity(0))
    stepper = Stepper([spec("a", recorder), inner], clock=ManualClock(), on_event=recorder)
    for _ in range(20):  # as often as one in four seconds may go on for ever
        stepper.run(4.0)
        assert stepper.ask("a", Recall()) == ()
        assert stepper.tell("leaf", Boom(ValueError("x")))
    stepper.run(4.0)
    assert stepper.statistics().closing is None
    for _ in range(3):
        stepper.run(1.1)
        stepper.tell("leaf", Boom(ValueError("x")))
    stepper.run(1.1)
    assert isinstance(stepper.reason, IntensityExceeded)
    assert stepper.directory.ids() == frozenset()


def test_an_ask_drives_the_clock_until_it_is_answered_and_raises_what_the_handler_raised(recorder: Recorder) -> None:
    stepper = Stepper([spec("a", recorder)], clock=ManualClock())
    stepper.run(0)
    stepper.tell("a", Note("x"))
    assert stepper.ask("a", Recall()) == ("x",)
    with pytest.raises(KeyError):
        stepper.ask("a", Boom(KeyError("y")))
    assert stepper.run_until(lambda: stepper.directory.is_alive("a"))
    stepper.tell("a", Leave())
    assert not stepper.run_until(lambda: False, limit=10.0)
    assert stepper.statistics().children[0].generation == 3


class Waits(Probe):
    """Its start goes on until it hears of something."""

    announces_itself = True

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Leave):
            self.announce_started()
        return super().on_receive(message)


def test_a_start_that_is_never_announced_times_out_by_the_clock(recorder: Recorder) -> None:
    stepper = Stepper([spec("a", recorder, Waits, start_deadline=30.0)], clock=ManualClock(), on_event=recorder)
    stepper.run(29.0)
    assert recorder.exits("a") == []
    stepper.run(1.5)
    assert recorder.exits("a") == [StartTimeout(30.0)]


def test_a_nested_supervisor_that_does_not_get_started_is_stopped_and_started_anew(recorder: Recorder) -> None:
    waits = spec("leaf", recorder, Waits, start_deadline=10.0)
    inner = ChildSpec("inner", supervisor([spec("a", recorder), waits]), start_deadline=5.0)
    stepper = Stepper([inner], clock=ManualClock(), on_event=recorder)
    assert stepper.run_until(lambda: recorder.exits("inner") != [], limit=100.0)
    assert recorder.exits("inner") == [StartTimeout(inner.longest_start)]
    assert recorder.exits("a") == [Shutdown()]
    assert stepper.run_until(lambda: stepper.directory.is_alive("leaf"), limit=100.0)
    assert stepper.stop() == Shutdown()
