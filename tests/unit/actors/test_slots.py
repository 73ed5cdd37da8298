from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from stem_actors.actors.flights import Flight, Flights
from stem_actors.actors.slots import INSIDE, LIVELY, MOST_INSIDE, Slot, SlotState
from stem_actors.executors.process import ExecutorProcess
from stem_actors.model.delivery import State
from stem_actors.model.outcome import Interrupted
from tests.unit.model.values import delivery_of

NOW = 100.0


def slot(inside: int = 0, *, width: int = 0, expected: float = 0.0) -> Slot:
    """A slot whose executor is ready; with a width it is one for coroutine tasks."""
    made = Slot(0, is_async=bool(width), width=width or 1, is_ready=True, active_at=NOW, expected=expected)
    made.process = cast(ExecutorProcess, SimpleNamespace(handed=dict.fromkeys(range(inside))))
    return made


def flight(expected: float | None = None, lapses: int = 0) -> Flight:
    made = Flights().add(delivery_of(State(lapses=lapses)), NOW)
    made.expected = expected
    return made


def test_a_slot_without_a_ready_process_is_closed() -> None:
    empty = Slot(0, is_async=False, width=1)
    assert (empty.state, empty.is_open(NOW)) == (SlotState.EMPTY, False)
    starting = slot()
    starting.is_ready = False
    assert (starting.state, starting.is_open(NOW)) == (SlotState.STARTING, False)


def test_a_slot_that_leaves_or_is_reserved_or_is_being_killed_is_closed() -> None:
    for change in ({"is_leaving": True}, {"reserved_for": flight()}, {"verdicts": {1: Interrupted()}}):
        closed = slot()
        for name, value in change.items():
            setattr(closed, name, value)
        assert not closed.is_open(NOW)


def test_an_idle_slot_takes_anything() -> None:
    assert slot().state is SlotState.IDLE
    assert slot().is_open(NOW)
    assert all(slot().takes(each) for each in (flight(), flight(60.0), flight(lapses=2)))


@pytest.mark.parametrize(
    ("expected", "takes"), [(None, False), (60.0, False), (INSIDE * 0.4, True), (INSIDE * 0.6, False)]
)  # fmt: skip
def test_only_what_is_known_to_be_short_waits_inside(expected: float | None, takes: bool) -> None:
    assert slot(1, expected=INSIDE / 2).takes(flight(expected)) is takes


def test_no_more_than_so_many_wait_inside() -> None:
    assert slot(MOST_INSIDE - 1).takes(flight(0.0))
    assert not slot(MOST_INSIDE).takes(flight(0.0))


def test_a_busy_slot_is_open_while_it_is_lively_and_half_empty() -> None:
    assert slot(MOST_INSIDE // 2).is_open(NOW)
    assert not slot(MOST_INSIDE // 2 + 1).is_open(NOW)
    assert not slot(1, expected=INSIDE / 2).is_open(NOW)
    assert not slot(1).is_open(NOW + 2 * LIVELY)


def test_what_was_lost_with_others_shares_no_process() -> None:
    assert not slot(1).takes(flight(0.0, lapses=1))
    assert not slot(1, width=10).takes(flight(lapses=1))
    assert slot(0, width=10).takes(flight(lapses=1))


def test_a_slot_for_coroutines_takes_as_many_as_it_is_wide() -> None:
    assert slot(9, width=10).is_open(NOW + 60)
    assert slot(9, width=10).takes(flight(60.0))
    assert not slot(10, width=10).takes(flight())
    assert not slot(10, width=10).is_open(NOW)


def test_a_vacated_slot_remembers_nothing_of_its_process() -> None:
    used = slot(3, expected=1.0)
    used.spares = True
    used.verdicts[1] = Interrupted()
    used.reserved_for = flight()
    used.vacate()
    assert (used.state, used.inside, used.expected) == (SlotState.EMPTY, 0, 0.0)
    assert (used.spares, len(used.verdicts), used.reserved_for is None) == (False, 0, True)


def test_an_empty_slot_takes_one_unknown_task_and_no_second_behind_it() -> None:
    assert slot(0).takes(flight(), boarding=0)
    assert not slot(0).takes(flight(), boarding=1)
    assert not slot(0).takes(flight(lapses=1), boarding=1)


def test_a_slot_with_threads_takes_as_many_as_it_is_wide_and_nothing_waits_inside() -> None:
    made = slot(2)
    made.width = 3
    assert made.is_shared
    assert made.is_open(NOW + 60)
    assert made.takes(flight())
    assert not made.takes(flight(0.0), boarding=1)
    assert not made.takes(flight(lapses=1))


def test_an_executor_gets_no_more_tasks_than_it_is_to_have_in_its_life() -> None:
    made = slot(2)
    made.most_runs, made.runs = 5, 2
    assert made.takes(flight(0.0))
    assert not made.takes(flight(0.0), boarding=1)
    made.runs = 3
    assert not made.is_open(NOW)
    made.vacate()
    assert made.runs == 0


def test_a_slot_whose_executor_is_stopped_or_dying_is_closed() -> None:
    stopped = slot()
    stopped.is_stopped = True
    assert (stopped.state, stopped.is_open(NOW)) == (SlotState.STOPPED, False)
    dying = slot()
    dying.killed_at = NOW
    assert not dying.is_open(NOW)
