"""Rate limits in memory."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.memory.space import Space
from stem_actors.model.rate import Bucket, Limit, ask

__all__ = ["MemoryRateLimits"]


class MemoryRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def acquire(self, asked: Sequence[Sequence[Limit]]) -> list[float | None]:
        with self._space.changed:
            now, buckets = self._space.clock.now(), self._space.buckets
            answers = []
            for limits in asked:
                before = [buckets.get(key, Bucket()) for key, _ in limits]
                after, wait = ask(before, [rate for _, rate in limits], now)
                buckets.update(zip((key for key, _ in limits), after, strict=True))
                answers.append(wait)
            for key in [key for key, bucket in buckets.items() if bucket.ends_at <= now]:
                del buckets[key]
            return answers

    def close(self) -> None:
        """Nothing to close."""
