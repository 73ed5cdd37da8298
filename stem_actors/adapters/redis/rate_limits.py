"""Rate limits in Redis: a key for each bucket that is not full, which goes by itself when it is."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.model.rate import LONGEST_LINE, Limit

__all__ = ["RedisRateLimits"]

MOST_AT_ONCE = 500


class RedisRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._is_closed = False

    def acquire(self, asked: Sequence[Sequence[Limit]]) -> list[float | None]:
        answers: list[float | None] = []
        for start in range(0, len(asked), MOST_AT_ONCE):
            answers += self._acquire(asked[start : start + MOST_AT_ONCE])
        return answers

    def _acquire(self, asked: Sequence[Sequence[Limit]]) -> list[float | None]:
        buckets: dict[str, int] = {}
        arguments: list[str | int] = [self._server.given, round(LONGEST_LINE)]
        for limits in asked:
            arguments.append(len(limits))
            for key, rate in limits:
                bucket = buckets.setdefault(self._keys.rate(key), len(buckets) + 1)
                arguments += (bucket, rate.number, round(rate.interval * 1000))
        said = self._server.run(Script.named("permit"), list(buckets), arguments) if buckets else [b""] * len(asked)
        return [float(wait) / 1000 if wait else None for wait in said]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()
