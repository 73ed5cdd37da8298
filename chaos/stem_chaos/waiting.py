"""Waiting for what happens in other processes: looks again and again, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["within"]

_PAUSE = 0.01


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether it comes true in that time; returns as soon as it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True
