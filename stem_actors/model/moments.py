"""Moments and spans as users write them (`eta`, `countdown`) in seconds. Pure: the caller says what time it is."""

from __future__ import annotations

import datetime as dt

from stem_actors.errors import UsageError

__all__ = ["delay_until", "timestamp"]


def timestamp(moment: dt.datetime | float) -> float:
    """Seconds since the epoch of an aware datetime; a number is taken as such."""
    if not isinstance(moment, dt.datetime):
        return float(moment)
    if moment.tzinfo is None:
        raise UsageError(f"{moment.isoformat()} has no time zone and could mean many moments; use an aware datetime")
    return moment.timestamp()


def delay_until(countdown: float | None, eta: dt.datetime | float | None, now: float) -> float:
    """Seconds to wait, never below 0. `eta` wins over `countdown`."""
    if eta is not None:
        return max(0.0, timestamp(eta) - now)
    return max(0.0, countdown or 0.0)
