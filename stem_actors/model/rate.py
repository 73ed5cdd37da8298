"""How often: a `Rate` as it is written at a task, and the arithmetic of its token bucket. Pure.

A bucket is kept as two moments (GCRA), so it fills by itself and an idle one needs no keeping. Redis computes the same in
`adapters/redis/scripts/permit.lua`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from stem_actors.errors import TaskDefinitionError

__all__ = ["LONGEST_LINE", "Bucket", "Limit", "Rate", "ask", "parse_rate"]

LONGEST_LINE = 60.0
"""Seconds over which those that are refused are spread; then the line begins anew, lest it outlast those who wait in it."""

_INTERVALS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = re.compile(r"([0-9]{1,9})/([smh])")
_EXACT = 1e-6  # seconds that may get lost in adding up


class Rate(NamedTuple):
    """So many per `interval` seconds; as many at once, when nothing happened for so long."""

    number: int
    interval: float

    @property
    def spacing(self) -> float:
        """Seconds in which one token grows."""
        return self.interval / self.number


class Limit(NamedTuple):
    """What `key` stands for may happen no oftener than `rate` says."""

    key: str
    rate: Rate


class Bucket(NamedTuple):
    """The tokens of one key. `full_at`: when it is full again; `line_ends`: when the last who was refused was to come back."""

    full_at: float = 0.0
    line_ends: float = 0.0

    @property
    def ends_at(self) -> float:
        """From when on it says nothing that an empty one does not."""
        return max(self)


def parse_rate(text: str) -> Rate:
    """The rate of `10/s`, `100/m` or `5/h`.

    Raises:
        TaskDefinitionError: it is none.
    """
    match = _WRITTEN.fullmatch(str(text))
    if match is None or not int(match[1]):
        raise TaskDefinitionError(
            f"{text!r} is no rate: a whole number above 0 per second, minute or hour, such as 10/s or 100/m"
        )
    return Rate(int(match[1]), _INTERVALS[match[2]])


def ask(buckets: Sequence[Bucket], rates: Sequence[Rate], now: float) -> tuple[list[Bucket], float | None]:
    """Take one token of each bucket, or of none; the buckets afterwards, and None or the seconds after which to ask again.

    Those that are refused one after another get moments one after another, so that they do not all come back for one token.
    """
    turns = [_turn(bucket, rate, now) for bucket, rate in zip(buckets, rates, strict=True)]
    is_granted = all(turn <= now + _EXACT for turn in turns)
    after: list[Bucket] = []
    wait = 0.0
    for bucket, rate, turn in zip(buckets, rates, turns, strict=True):
        if is_granted:
            bucket = Bucket(_full_at(bucket, rate, now) + rate.spacing, bucket.line_ends)
        elif turn > now + _EXACT:
            place = max(turn, bucket.line_ends + rate.spacing)
            if place - turn > LONGEST_LINE:
                place = turn
            bucket = Bucket(bucket.full_at, place)
            wait = max(wait, place - now)
        after.append(bucket)
    return after, None if is_granted else wait


def _full_at(bucket: Bucket, rate: Rate, now: float) -> float:
    return min(max(bucket.full_at, now), now + rate.interval)  # no later, though the clock was set back


def _turn(bucket: Bucket, rate: Rate, now: float) -> float:
    """When the bucket has a token."""
    return _full_at(bucket, rate, now) - rate.interval + rate.spacing
