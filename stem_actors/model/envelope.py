"""`Envelope`: what a producer sent. Immutable, encoded once, the same bytes through every retry and replay.

Owns the names and order of the fields. How they become bytes is `codecs.msgpack`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["LOWEST_PRIORITY", "WIRE_VERSION", "Envelope", "clamp_priority"]

WIRE_VERSION = 1
LOWEST_PRIORITY, HIGHEST_PRIORITY = 0, 9


class Envelope(NamedTuple):
    """One request to run a task. A named tuple, since the wire form is this array in this order, unpacked once per task.

    Times are seconds since the epoch, UTC; durations seconds.
    """

    version: int
    id: str
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    headers: Mapping[str, str]
    enqueued_at: float
    expires_at: float | None
    priority: int
    max_retries: int
    visibility_timeout: float | None
    queue: str
    meta: Mapping[str, Any]


def clamp_priority(priority: int) -> int:
    """The nearest priority that exists: 0 (last) to 9 (first)."""
    return max(LOWEST_PRIORITY, min(HIGHEST_PRIORITY, priority))
