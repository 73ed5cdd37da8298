"""A crew that grows and shrinks, with a launcher that only counts."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

from stem_actors.actors.catalogue import Catalogue
from stem_actors.actors.crew import Crew, Relaunch
from stem_actors.actors.slots import Slot
from stem_actors.executors.process import ExecutorProcess
from stem_actors.testing import ManualClock


class Bed:
    """The actor whose part the crew is, and the launcher in one."""

    def __init__(self, concurrency: int = 2) -> None:
        self.clock = ManualClock()
        self.launched: list[int] = []
        self.later: list[Any] = []
        self.stopped: list[Slot] = []
        self._tickets = itertools.count(1)
        self.crew = Crew(self, self, concurrency, async_slots=100)
        self.crew.start()

    def launch(self, slot: int) -> int:
        self.launched.append(slot)
        return next(self._tickets)

    def reap_all(self, timeout: float) -> bool:
        return True

    def hung(self) -> None: ...
    def watch(self, fd: int, message: object, *, write: bool = False) -> None: ...
    def unwatch(self, fd: int, *, write: bool | None = None) -> None: ...
    def after(self, seconds: float, message: object) -> None:
        self.later.append(message)

    def arrive(self, index: int, inside: int = 0) -> Slot:
        """The executor of a slot has started, and runs so much."""
        slot = self.crew.slots[index]
        process = SimpleNamespace(
            handed=dict.fromkeys(range(inside)),
            pid=0,
            request_stop=lambda: self.stopped.append(slot),
            close=lambda: None,
        )
        slot.process, slot.is_ready = cast(ExecutorProcess, process), True
        return slot

    def leave(self, slot: Slot) -> None:
        """It has ended."""
        slot.vacate()
        self.crew.failed(slot, slot.ticket)
        for message in self.later:
            assert isinstance(message, Relaunch)
            self.crew.relaunch(message.slot)
        self.later.clear()

    def wanted(self) -> list[int]:
        return [slot.index for slot in self.crew.slots if slot.is_wanted]


def test_it_grows_by_further_slots() -> None:
    bed = Bed(2)
    assert bed.crew.resize(4) == []
    assert bed.launched == [0, 1, 2, 3]


def test_those_leave_that_have_the_least_to_end_and_take_nothing_more() -> None:
    bed = Bed(3)
    for index, inside in enumerate((2, 0, 1)):
        bed.arrive(index, inside)
    leaving = bed.crew.resize(1)
    assert [slot.index for slot in leaving] == [1, 2]
    for slot in leaving:
        bed.crew.let_leave(slot)
    assert [slot.index for slot in bed.stopped] == [1]  # the other one runs a task
    assert not any(slot.is_open(0.0) for slot in leaving)
    assert bed.crew.width == 2  # one slot, and the run that is still to end
    bed.leave(leaving[0])
    assert bed.launched == [0, 1, 2]


def test_one_that_has_not_left_yet_is_the_first_to_be_wanted_again() -> None:
    bed = Bed(2)
    bed.arrive(0, 1)
    bed.arrive(1, 1)
    (leaving,) = bed.crew.resize(1)
    bed.crew.let_leave(leaving)
    assert bed.crew.resize(2) == []
    assert (bed.wanted(), bed.launched, bed.stopped) == ([0, 1], [0, 1], [])


def test_one_that_is_on_its_way_out_is_replaced_when_it_is_wanted_again() -> None:
    bed = Bed(2)
    bed.arrive(0)
    bed.arrive(1)
    (leaving,) = bed.crew.resize(1)
    bed.crew.let_leave(leaving)
    bed.crew.resize(2)
    assert bed.launched == [0, 1]
    bed.leave(leaving)
    assert bed.launched == [0, 1, leaving.index]


def test_what_is_still_starting_goes_first_and_is_not_taken_when_it_comes() -> None:
    bed = Bed(2)
    bed.arrive(0)
    (leaving,) = bed.crew.resize(1)
    assert (leaving.index, leaving.ticket) == (1, 0)
    ended: list[str] = []
    process = cast(ExecutorProcess, SimpleNamespace(kill=lambda: ended.append("killed"), close=lambda: ended.append("closed")))
    bed.crew.up(leaving, 2, process, is_wanted=True)
    assert (ended, leaving.process) == (["killed", "closed"], None)


def test_slots_are_used_again_so_that_there_are_never_more_than_the_most() -> None:
    bed = Bed(1)
    for number in (3, 1, 2, 3, 1, 4, 2, 1):
        bed.crew.resize(number)
        assert len(bed.wanted()) == number
    assert len(bed.crew.slots) == 4


def test_both_kinds_of_executors_are_resized() -> None:
    bed = Bed(2)
    catalogue = cast(Catalogue, SimpleNamespace(has_async=True, has_sync=True))
    bed.crew.take_up(catalogue)
    bed.crew.resize(3)
    kinds = [slot.is_async for slot in bed.crew.slots if slot.is_wanted]
    assert (kinds.count(True), kinds.count(False)) == (3, 3)
    assert {slot.width for slot in bed.crew.slots if slot.is_async} == {100}
    bed.crew.resize(1)
    kinds = [slot.is_async for slot in bed.crew.slots if slot.is_wanted]
    assert (kinds.count(True), kinds.count(False)) == (1, 1)
