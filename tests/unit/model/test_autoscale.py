"""How the number of executors follows the work, tick by tick."""

from __future__ import annotations

from dataclasses import replace

from stem_actors.model.autoscale import Autoscale, Scaled, decide

RULES = Autoscale(least=1, most=4)


def changes(
    rules: Autoscale, last: Scaled, seconds: float, backlog: int = 0, inflight: int = 0, start: float = 0.0
) -> list[tuple[float, int]]:
    """When it went to how many, with the same work at every tick."""
    found, now = [], start
    while now <= start + seconds:
        scaled = decide(rules, last, backlog, inflight, now)
        if scaled.executors != last.executors:
            found.append((now, scaled.executors))
        last, now = scaled, now + rules.tick
    return found


def test_without_work_one_goes_after_thirty_seconds_and_then_one_every_ten() -> None:
    assert changes(RULES, Scaled(4), 120) == [(30, 3), (40, 2), (50, 1)]


def test_with_a_backlog_one_comes_at_once_and_then_one_every_five_seconds_as_the_ticks_see_it() -> None:
    idle = Scaled(1, idle_since=0.0, lowered_at=50.0)
    assert changes(RULES, idle, 60, backlog=100, inflight=3, start=60.0) == [(60, 2), (66, 3), (72, 4)]


def test_a_backlog_that_those_there_can_take_is_not_worth_another() -> None:
    rules = replace(RULES, backlog_per_executor=2.0)
    assert decide(rules, Scaled(2), 3, 2, 0.0).executors == 2
    assert decide(rules, Scaled(2), 4, 2, 0.0).executors == 3


def test_work_of_any_kind_begins_the_idle_time_anew() -> None:
    for backlog, inflight in ((1, 0), (0, 1)):
        seen = Scaled(4, raised_at=0.0)
        for second in range(0, 28, 2):
            seen = decide(RULES, seen, 0, 0, float(second))
        seen = decide(RULES, seen, backlog, inflight, 28.0)
        assert changes(RULES, seen, 40, start=30.0) == [(60, 3), (70, 2)]


def test_steps_are_as_wide_as_they_are_set_and_end_at_the_bounds() -> None:
    rules = replace(RULES, up_step=3, down_step=5)
    assert changes(rules, Scaled(2), 20, backlog=9) == [(0, 4)]
    assert changes(rules, Scaled(3), 60) == [(30, 1)]


def test_a_worker_never_gets_more_than_it_may_have() -> None:
    assert Autoscale(2, 8).within(4) == Autoscale(2, 4)
    assert Autoscale(6, 8).within(4) == Autoscale(4, 4)
    assert Autoscale(2, 8).within(16) == Autoscale(2, 8)
