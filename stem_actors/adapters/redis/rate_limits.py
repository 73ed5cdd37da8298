"""Rate and concurrency limits in Redis: a key for each bucket that is not full, and for places. They go by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.model.concurrency import GRACE, Place
from stem_actors.model.rate import LONGEST_LINE, Limit

__all__ = ["RedisRateLimits"]

MOST_AT_ONCE = 500


class RedisRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._keys = Keys(namespace)
        self._is_closed = False

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        answers: list[float | None] = []
        for start in range(0, len(asked), MOST_AT_ONCE):
            answers += self._acquire(asked[start : start + MOST_AT_ONCE])
        return answers

    def _acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        buckets: dict[str, int] = {}
        semaphores: dict[str, int] = {}
        questions: list[str | int] = []
        for all_of_one in asked:
            limits = [each for each in all_of_one if isinstance(each, Limit)]
            places = [each for each in all_of_one if isinstance(each, Place)]
            questions.append(len(limits))
            for key, rate in limits:
                bucket = buckets.setdefault(self._keys.rate(key), len(buckets) + 1)
                questions += (bucket, rate.number, round(rate.interval * 1000))
            questions.append(len(places))
            for each in places:
                which = semaphores.setdefault(each.key, len(semaphores) + 1)
                questions += (which, each.number, each.holder, each.task)
                questions += (round(each.since * 1000), _milliseconds(each.lasts), _milliseconds(each.pace))
        if not buckets and not semaphores:
            return [None] * len(asked)
        keys = [*buckets, *(name for key in semaphores for name in (self._keys.places(key), self._keys.line(key)))]
        rules = [self._server.given, round(LONGEST_LINE), _milliseconds(GRACE), len(buckets)]
        said = self._server.run(Script.named("permit"), keys, [*rules, *questions])
        return [float(wait) / 1000 if wait else None for wait in said]

    def renew(self, places: Sequence[Place]) -> list[bool]:
        answers: list[bool] = []
        for start in range(0, len(places), MOST_AT_ONCE):
            some = places[start : start + MOST_AT_ONCE]
            which = {key: at for at, key in enumerate(dict.fromkeys(place.key for place in some), 1)}
            arguments: list[str | int] = [self._server.given]
            for place in some:
                arguments += (which[place.key], place.number, place.holder, _milliseconds(place.lasts))
            answers += map(bool, self._server.run(Script.named("renew_places"), [*map(self._keys.places, which)], arguments))
        return answers

    def release(self, places: Sequence[Place]) -> None:
        for start in range(0, len(places), MOST_AT_ONCE):
            some = places[start : start + MOST_AT_ONCE]
            which = {key: at for at, key in enumerate(dict.fromkeys(place.key for place in some), 1)}
            arguments = [argument for place in some for argument in (which[place.key], place.holder)]
            self._server.run(Script.named("free_places"), [*map(self._keys.places, which)], arguments)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
