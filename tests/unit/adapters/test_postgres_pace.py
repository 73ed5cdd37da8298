"""What is dear is done less often."""

from __future__ import annotations

from stem_actors.adapters.postgres.pace import SHARE, Pace
from stem_actors.testing import ManualClock


def do(pace: Pace, clock: ManualClock, seconds: float) -> None:
    with pace.timed():
        clock.advance(seconds)


def test_what_takes_no_time_is_always_due() -> None:
    clock = ManualClock()
    pace = Pace(clock.monotonic)
    for _ in range(3):
        assert pace.is_due
        do(pace, clock, 0.0)
    assert pace.is_due


def test_it_takes_one_part_of_the_time_at_most() -> None:
    clock = ManualClock()
    pace = Pace(clock.monotonic)
    for _ in range(2):
        do(pace, clock, 0.5)
    clock.advance(0.5 * (SHARE - 1) - 0.01)
    assert not pace.is_due
    clock.advance(0.02)
    assert pace.is_due


def test_one_time_that_was_slow_alone_does_not_count() -> None:
    clock = ManualClock()
    pace = Pace(clock.monotonic)
    for seconds in (0.0, 10.0, 0.0):
        do(pace, clock, seconds)
        assert pace.is_due


def test_what_failed_is_due_again() -> None:
    clock = ManualClock()
    pace = Pace(clock.monotonic)
    do(pace, clock, 0.5)
    try:
        with pace.timed():
            clock.advance(0.5)
            raise TimeoutError
    except TimeoutError:
        pass
    assert pace.is_due
