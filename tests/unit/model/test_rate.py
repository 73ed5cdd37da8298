"""Rates as they are written, and the arithmetic of token buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_actors.errors import TaskDefinitionError, UsageError
from stem_actors.model.rate import LONGEST_LINE, Bucket, Rate, ask, parse_rate
from stem_actors.model.task import TaskOptions

rates = st.builds(Rate, st.integers(1, 200), st.sampled_from([1.0, 60.0, 3600.0]))
gaps = st.floats(0, 100)


@pytest.mark.parametrize(("text", "rate"), [("10/s", (10, 1.0)), ("100/m", (100, 60.0)), ("5/h", (5, 3600.0))])
def test_a_rate_is_a_number_per_second_minute_or_hour(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10 / s", "10/s\n", "٣/s", 10])
def test_anything_else_is_refused_where_the_task_is_defined(text: str) -> None:
    for option in ("rate_limit", "group_rate_limit"):
        with pytest.raises(UsageError, match="is no rate"):
            TaskOptions(**{option: text})  # type: ignore[arg-type]  # as an untyped program may


def test_an_unknown_failure_mode_is_refused() -> None:
    with pytest.raises(TaskDefinitionError, match="fail_open or fail_closed"):
        TaskOptions(rate_limit="1/s", rate_limit_failure_mode="fail_loudly")  # type: ignore[arg-type]  # see above


def test_a_full_bucket_gives_all_it_has_at_once_and_then_one_at_a_time() -> None:
    buckets, rate = [Bucket()], Rate(10, 1.0)
    answers = []
    for moment in [100.0] * 11 + [100.09, 100.1, 100.11]:
        buckets, wait = ask(buckets, [rate], moment)
        answers.append(wait)
    assert [wait is None for wait in answers] == [*[True] * 10, False, False, True, False]
    assert answers[10] == pytest.approx(0.1)


def test_those_who_are_refused_get_different_moments_until_the_line_is_too_long() -> None:
    buckets, waits = [Bucket()], []
    for _ in range(64):
        buckets, wait = ask(buckets, [Rate(1, 1.0)], 100.0)
        waits.append(wait)
    assert waits == [None, *(float(place) for place in range(1, 62)), 1.0, 2.0]
    assert max(wait for wait in waits if wait is not None) <= LONGEST_LINE + 1.0


def test_of_two_limits_none_gives_a_token_while_the_other_refuses() -> None:
    wide, narrow = Rate(3, 60.0), Rate(1, 60.0)
    buckets, wait = ask([Bucket(), Bucket()], [wide, narrow], 100.0)
    assert wait is None
    after, wait = ask(buckets, [wide, narrow], 101.0)
    assert after[0] == buckets[0]
    assert wait == pytest.approx(59.0)


def test_a_clock_that_was_set_back_holds_up_nobody_for_long() -> None:
    (bucket,), _ = ask([Bucket()], [Rate(2, 1.0)], 100_000.0)
    _, wait = ask([bucket], [Rate(2, 1.0)], 100.0)
    assert wait is not None
    assert wait <= 1.0


@given(rates, st.lists(gaps, max_size=80))
def test_in_no_stretch_of_time_is_more_granted_than_the_rate_and_one_burst(rate: Rate, story: list[float]) -> None:
    buckets, now, granted = [Bucket()], 1e9, list[float]()
    for gap in story:
        now += gap * rate.spacing / 20
        buckets, wait = ask(buckets, [rate], now)
        if wait is None:
            granted.append(now)
        else:
            assert wait > 0
    for first, begin in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= rate.number + (granted[last] - begin) / rate.spacing + 1e-3


@given(rates, st.integers(1, 30))
def test_who_comes_back_when_he_was_told_to_is_let_in(rate: Rate, others: int) -> None:
    """When those before him come back as well, and nobody else comes."""
    now, buckets = 1e9, [Bucket(full_at=1e9 + rate.interval)]
    line: list[float] = []
    for _ in range(others):
        buckets, wait = ask(buckets, [rate], now)
        assert wait is not None
        line.append(now + wait)
    if line == sorted(set(line)):  # else the line began anew
        for moment in line:
            buckets, wait = ask(buckets, [rate], moment)
            assert wait is None


@given(rates, gaps)
def test_a_bucket_that_has_ended_is_like_one_that_never_was(rate: Rate, gap: float) -> None:
    now, buckets = 1e9, [Bucket()]
    for _ in range(3):
        buckets, _ = ask(buckets, [rate], now)
    later = buckets[0].ends_at + gap
    kept, fresh = buckets, [Bucket()]
    for _ in range(rate.number + 1):
        kept, answer = ask(kept, [rate], later)
        fresh, other = ask(fresh, [rate], later)
        assert (answer is None) == (other is None)
