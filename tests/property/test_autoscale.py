"""Whatever work comes and goes, the number of executors stays within its bounds and changes no faster than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stem_actors.model.autoscale import Autoscale, Scaled, decide

durations = st.floats(0.1, 60)
loads = st.lists(st.tuples(st.sampled_from([0, 0, 1, 5, 1000]), st.sampled_from([0, 0, 3]), st.floats(0.1, 40)), max_size=60)


@st.composite
def all_rules(draw: st.DrawFn) -> Autoscale:
    least = draw(st.integers(1, 8))
    return Autoscale(
        least,
        draw(st.integers(least, 12)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(st.floats(0.1, 50)),
        draw(durations),
        2.0,
        draw(durations),
        draw(durations),
    )


@given(all_rules(), loads)
def test_bounds_steps_and_cooldowns_hold(rules: Autoscale, work: list[tuple[int, int, float]]) -> None:
    now, last = 0.0, Scaled(rules.most)
    raised_at = lowered_at = busy_at = float("-inf")
    began = now
    for backlog, inflight, pause in work:
        scaled = decide(rules, last, backlog, inflight, now)
        assert rules.least <= scaled.executors <= rules.most
        if backlog or inflight:
            busy_at = now
        if scaled.executors > last.executors:
            assert scaled.executors - last.executors <= rules.up_step
            assert backlog / last.executors >= rules.backlog_per_executor
            assert now - raised_at >= rules.up_cooldown
            raised_at = now
        elif scaled.executors < last.executors:
            assert last.executors - scaled.executors <= rules.down_step
            assert not backlog
            assert not inflight
            assert now - lowered_at >= rules.down_cooldown
            assert now - max(busy_at, began) >= rules.idle_period
            lowered_at = now
        last, now = scaled, now + pause


@given(all_rules(), st.integers(1, 12))
def test_a_worker_without_work_ends_at_the_least_and_one_with_plenty_at_the_most(rules: Autoscale, start: int) -> None:
    last, now = Scaled(min(max(start, rules.least), rules.most)), 0.0
    for _ in range(3000):
        last, now = decide(rules, last, 0, 0, now), now + rules.tick
    assert last.executors == rules.least
    for _ in range(600):
        last, now = decide(rules, last, 10_000, 5, now), now + rules.tick
    assert last.executors == rules.most
