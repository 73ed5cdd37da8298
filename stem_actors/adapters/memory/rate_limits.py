"""Rate and concurrency limits in memory."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.memory.space import Space
from stem_actors.model.concurrency import Place, Semaphore, grant
from stem_actors.model.rate import Limit

__all__ = ["MemoryRateLimits"]


class MemoryRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        with self._space.changed:
            now, buckets, semaphores = self._space.clock.now(), self._space.buckets, self._space.semaphores
            answers = grant(asked, buckets, semaphores, now)
            for key in [key for key, bucket in buckets.items() if bucket.ends_at <= now]:
                del buckets[key]
            for key in [key for key, semaphore in semaphores.items() if semaphore.at(now).is_idle(now)]:
                del semaphores[key]
            return answers

    def renew(self, places: Sequence[Place]) -> list[bool]:
        with self._space.changed:
            now, semaphores = self._space.clock.now(), self._space.semaphores
            answers = []
            for place in places:
                after = semaphores.get(place.key, Semaphore()).at(now).renewed(place, now)
                if after is not None:
                    semaphores[place.key] = after
                answers.append(after is not None)
            return answers

    def release(self, places: Sequence[Place]) -> None:
        with self._space.changed:
            for key, _, holder, *_ in places:
                if key in self._space.semaphores:
                    self._space.semaphores[key] = self._space.semaphores[key].freed(holder)

    def close(self) -> None:
        """Nothing to close."""
