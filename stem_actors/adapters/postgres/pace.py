"""`Pace`: how often to do what grows dear while somebody's open transaction keeps the dead from being cleared away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

SHARE = 20
"""It takes one part in so many of the time, at most."""


class Pace:
    """Of one thing that is done again and again. `monotonic` says the time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._took = 0.0
        self._next_at = float("-inf")

    @property
    def is_due(self) -> bool:
        return self._monotonic() >= self._next_at

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around doing it. The quicker of the last two times counts: if one alone was slow, that was the machine or the way."""
        start = self._monotonic()
        yield
        before, self._took = self._took, self._monotonic() - start
        self._next_at = start + SHARE * min(before, self._took)
