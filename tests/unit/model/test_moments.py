from __future__ import annotations

import datetime as dt

import pytest

from stem_actors.errors import UsageError
from stem_actors.model.moments import delay_until, timestamp

NOON = dt.datetime(2025, 1, 1, 12, tzinfo=dt.UTC)


def test_an_aware_datetime_is_a_moment_in_any_zone() -> None:
    assert timestamp(NOON) == timestamp(NOON.astimezone(dt.timezone(dt.timedelta(hours=5)))) == 1735732800.0


def test_a_datetime_without_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="time zone"):
        timestamp(dt.datetime(2025, 1, 1))


def test_eta_wins_over_countdown_and_the_past_means_now() -> None:
    assert delay_until(5, NOON, timestamp(NOON) - 60) == 60.0
    assert delay_until(5, NOON, timestamp(NOON) + 60) == 0.0
    assert delay_until(5, None, 0.0) == 5.0
    assert delay_until(None, None, 0.0) == 0.0
