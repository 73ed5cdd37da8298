"""Actors and a recorder that the supervision tests share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from stem_actors.supervision import (
    ActorContext,
    Backoff,
    ChildExited,
    ChildRestarted,
    ChildSpec,
    ChildStarted,
    Data,
    Event,
    ExitReason,
    Intensity,
    StemActor,
    Strategy,
    Tree,
    actor,
    start_tree,
)

PATIENCE = 20.0
SOON = Backoff(initial=0.001, maximum=0.01, factor=1.0, jitter=0.0)
E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Note(Data):
    """Something to remember."""

    text: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Asks for the notes so far."""


@dataclass(frozen=True, slots=True)
class Boom:
    """Raises in the handler."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Block:
    """Does not return until `until` is set."""

    entered: threading.Event
    until: threading.Event


@dataclass(frozen=True, slots=True)
class Leave:
    """Stops from inside."""


class Recorder:
    """All events and entries in order; any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: list[Event] = []
        self.entries: list[str] = []

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def note(self, entry: str) -> None:
        with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), (self.events, self.entries)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in list(self.events) if isinstance(event, kind)]

    def exits(self, child_id: str) -> list[ExitReason]:
        return [event.reason for event in self.of(ChildExited) if event.child_id == child_id]

    def restarts(self, child_id: str) -> list[ChildRestarted]:
        return [event for event in self.of(ChildRestarted) if event.child_id == child_id]

    def wait_for_exit(self, child_id: str, number: int = 1) -> ExitReason:
        self.wait_for(lambda: len(self.exits(child_id)) >= number)
        return self.exits(child_id)[number - 1]

    def wait_for_life(self, child_id: str, generation: int) -> None:
        self.wait_for(
            lambda: any(event.child_id == child_id and event.generation >= generation for event in self.of(ChildStarted))
        )


class Probe(StemActor):
    """Does as told, and notes its starts, stops and failures."""

    mailbox_bound = 100

    def __init__(self, context: ActorContext, recorder: Recorder) -> None:
        super().__init__(context)
        self.recorder = recorder
        self.notes: list[str] = []

    def on_start(self) -> None:
        self.recorder.note(f"start {self.name}")

    def on_stop(self) -> None:
        self.recorder.note(f"stop {self.name}")

    def on_failure(self, *error: object) -> None:
        self.recorder.note(f"failure {self.name}")

    def on_receive(self, message: Any) -> Any:
        match message:
            case Note(text):
                self.notes.append(text)
            case Recall():
                return tuple(self.notes)
            case Boom(error):
                raise error
            case Block(entered, until):
                entered.set()
                until.wait()
            case Leave():
                self.stop()
        return None


def spec(child_id: str, recorder: Recorder, kind: type[Probe] = Probe, **options: Any) -> ChildSpec:
    """A probe that is restarted fast, and often enough for any test that does not test that."""
    options.setdefault("backoff", SOON)
    options.setdefault("intensity", Intensity(50, 10.0))
    return ChildSpec(child_id, actor(lambda context: kind(context, recorder)), **options)


@contextmanager
def running(
    recorder: Recorder, *specs: ChildSpec, strategy: Strategy = Strategy.ONE_FOR_ONE, tick: float = 0.02
) -> Iterator[Tree]:
    """A tree for the length of a block."""
    tree = start_tree(specs, strategy, on_event=recorder, tick=tick)
    try:
        yield tree
    finally:
        assert tree.stop(PATIENCE) is not None
