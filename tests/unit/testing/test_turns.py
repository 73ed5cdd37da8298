"""What only simulations ask of the stepper: several trees on one clock, actors that wait for the outside, stops and kills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from stem_actors.supervision import ActorContext, ChildSpec, StemActor, Stepper, actor
from stem_actors.supervision.stepper import Turns
from stem_actors.testing import ManualClock


@dataclass(frozen=True, slots=True)
class Do:
    """Something to do when it is handled."""

    action: Callable[[StemActor], Any]


@dataclass(frozen=True, slots=True)
class Tick:
    pass


class Doer(StemActor):
    """Does what it is told, and notes when."""

    def __init__(self, context: ActorContext, notes: list[str]) -> None:
        super().__init__(context)
        self.notes = notes

    def on_receive(self, message: Any) -> Any:
        match message:
            case Do(action):
                action(self)
            case _:
                self.notes.append(f"{self.clock.monotonic():g} {self.name} {message}")

    def on_stop(self) -> None:
        self.notes.append(f"{self.clock.monotonic():g} {self.name} stops")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def turns() -> Turns:
    return Turns(ManualClock(monotonic=0.0))


def tree(turns: Turns, notes: list[str], *names: str) -> Stepper:
    made = Stepper([ChildSpec(name, actor(lambda context: Doer(context, notes))) for name in names], turns=turns)
    turns.run(0)
    return made


def test_trees_share_a_clock_and_not_their_names(turns: Turns, notes: list[str]) -> None:
    one, other = tree(turns, notes, "a"), tree(turns, notes, "a")
    one.tell("a", Do(lambda self: self.after(1.0, "one")))
    other.tell("a", Do(lambda self: self.after(2.0, "other")))
    one.run(3.0)
    assert notes == ["1 a one", "2 a other"]
    assert other.clock.monotonic() == 3.0


def test_a_plan_comes_true_at_its_time_between_the_turns_of_actors(turns: Turns, notes: list[str]) -> None:
    stepper = tree(turns, notes, "a")
    turns.plan(1.5, lambda: notes.append("planned"))
    stepper.tell("a", Do(lambda self: (self.after(1.0, "before"), self.after(2.0, "after"))))
    assert turns.run_until(lambda: len(notes) == 3)
    assert notes == ["1 a before", "planned", "2 a after"]


def test_an_actor_that_rests_is_woken_by_a_message_and_by_what_it_looks_for(turns: Turns, notes: list[str]) -> None:
    stepper = tree(turns, notes, "a")
    stock: list[str] = []

    def wait(self: StemActor) -> None:
        turns.rest(10.0, lambda: float("-inf") if stock else None)
        self.after(0.0, "looked")

    stepper.tell("a", Do(wait))
    turns.run(2.0)
    assert notes == []  # its timer is due, and it rests
    stepper.tell("a", "mail")
    turns.run(1.0)
    assert sorted(notes) == ["2 a looked", "2 a mail"]
    notes.clear()
    stepper.tell("a", Do(wait))
    turns.plan(4.0, lambda: stock.append("goods"))
    turns.plan(4.5, turns.news)
    turns.run(6.0)
    assert notes == ["7.5 a looked"]
    stock.clear()
    notes.clear()
    stepper.tell("a", Do(wait))
    turns.run(30.0)
    assert notes == ["19 a looked"]


def test_what_an_actor_sends_behind_a_late_reply_leaves_late(turns: Turns, notes: list[str]) -> None:
    stepper = tree(turns, notes, "a", "b")

    def ask(self: StemActor) -> None:
        self.tell("b", "before")
        turns.hold(5.0)
        self.tell("b", "behind")

    stepper.tell("a", Do(ask))
    stepper.tell("a", "next")
    turns.run(10.0)
    assert sorted(notes) == ["0 b before", "5 a next", "5 b behind"]


def test_a_frozen_tree_does_nothing_until_it_goes_on(turns: Turns, notes: list[str]) -> None:
    stepper, other = tree(turns, notes, "a"), tree(turns, notes, "b")
    stepper.tell("a", Do(lambda self: self.after(1.0, "late")))
    other.tell("b", Do(lambda self: self.after(1.0, "in time")))
    turns.run(0)
    stepper.freeze()
    stepper.tell("a", "mail")
    turns.plan(20.0, stepper.thaw)
    turns.run(30.0)
    assert notes[0] == "1 b in time"
    assert sorted(notes[1:]) == ["20 a late", "20 a mail"]


def test_a_killed_tree_does_not_even_stop(turns: Turns, notes: list[str]) -> None:
    stepper = tree(turns, notes, "a")
    stepper.tell("a", Do(lambda self: self.after(1.0, "never")))
    stepper.tell("a", "never")
    stepper.kill()
    turns.run(60.0)
    assert notes == []
    assert stepper.reason is None


def test_a_made_up_descriptor_is_reported_while_it_is_readable(turns: Turns, notes: list[str]) -> None:
    stepper = tree(turns, notes, "a")
    stepper.tell("a", Do(lambda self: self.watch(-7, "readable")))
    turns.run(1.0)
    turns.signal(-7)
    assert turns.step()
    assert turns.step()
    turns.silence(-7)
    turns.run(1.0)
    assert notes == ["1 a readable"] * 2
    stepper.tell("a", Do(lambda self: self.unwatch(-7)))
    turns.run(0)
    turns.signal(-7)
    turns.run(1.0)
    assert len(notes) == 2


def test_actors_that_keep_each_other_busy_for_ever_are_named(
    turns: Turns, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stem_actors.supervision.stepper._LONGEST_MOMENT", 1000)
    stepper = tree(turns, notes, "a", "b")

    def hit(self: StemActor) -> None:
        self.tell("b" if self.name == "a" else "a", Do(hit))

    stepper.tell("a", Do(hit))
    with pytest.raises(RuntimeError, match=r"[ab] never come to rest"):
        turns.run(1.0)
