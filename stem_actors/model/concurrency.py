"""How many at once: the places of a key, each a lease, and who gets the next one that comes free. Pure.

A place is held by one delivery and lapses with its lease. Who is refused comes back later, and not all at once: those of one key
are told moments one after another. The oldest of them is next, and comes back soonest; what comes free is kept for it until it
was to have come, so that nobody who waits is overtaken for ever. Redis computes the same in `adapters/redis/scripts/permit.lua`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import NamedTuple

from stem_actors.model.rate import LONGEST_LINE, Bucket, Limit, ask

__all__ = ["GRACE", "LONGEST_PACE", "MOST_PLACES", "SHORTEST_PACE", "Place", "Semaphore", "grant", "pace"]

MOST_PLACES = 100_000
SHORTEST_PACE, LONGEST_PACE = 0.02, 0.25
GRACE = 1.0
"""Seconds for which a free place waits for the next beyond the moment at which it was told to come."""


class Place(NamedTuple):
    """One place asked for: at most `number` of `key` are held at a time.

    `holder`  who holds it: one delivery, and never another
    `task`    whose turn it is, through all its deliveries; `since` when it was enqueued: the oldest is next
    `lasts`   seconds after which it lapses unless it is renewed
    `pace`    seconds after which a place is likely to come free
    """

    key: str
    number: int
    holder: str
    task: str
    since: float
    lasts: float
    pace: float = LONGEST_PACE


class Semaphore(NamedTuple):
    """The places of one key: when each lapses, by holder; when the line of those that were refused ends; and who is next."""

    ends: Mapping[str, float] = {}
    line_ends: float = 0.0
    next_task: str = ""
    next_since: float = 0.0
    next_until: float = 0.0

    def at(self, now: float) -> Semaphore:
        """Without what has lapsed."""
        return self._replace(ends={holder: end for holder, end in self.ends.items() if end > now})

    def is_idle(self, now: float) -> bool:
        """Whether it says nothing that a new one does not."""
        return not self.ends and max(self.line_ends, self.next_until) <= now

    def admits(self, place: Place, now: float) -> bool:
        """Whether there is a place for this one. One that holds a place has it."""
        is_kept = self.next_until > now and self.next_task != place.task
        return place.holder in self.ends or place.number - len(self.ends) > is_kept

    def taken(self, place: Place, now: float) -> Semaphore:
        after = self._replace(ends={**self.ends, place.holder: now + place.lasts})
        return after._replace(next_task="", next_until=0.0) if self.next_task == place.task else after

    def refused(self, place: Place, now: float) -> tuple[Semaphore, float]:
        """And the seconds after which to ask again."""
        if self.next_until <= now or place.task == self.next_task or place.since < self.next_since:
            until = now + place.pace + GRACE
            return self._replace(next_task=place.task, next_since=place.since, next_until=until), place.pace
        turn = max(now, self.line_ends) + place.pace
        if turn - now > LONGEST_LINE:
            turn = now + place.pace
        return self._replace(line_ends=turn), turn - now

    def renewed(self, place: Place, now: float) -> Semaphore | None:
        """Held on; also when it had lapsed, as long as nobody has taken it meanwhile. None: others have."""
        if place.holder not in self.ends and len(self.ends) >= place.number:
            return None
        return self._replace(ends={**self.ends, place.holder: now + place.lasts})

    def freed(self, holder: str) -> Semaphore:
        return self._replace(ends={each: end for each, end in self.ends.items() if each != holder})


def pace(expected: float | None, number: int, refusals: int = 0) -> float:
    """Seconds after which one of so many places is likely to come free.

    `expected`: how long a run takes. As long as nobody knows, it is thought to be the longer the oftener one was refused.
    """
    likely = SHORTEST_PACE * 2 ** max(0, min(refusals, 8)) if expected is None else expected / number
    return min(LONGEST_PACE, max(SHORTEST_PACE, likely))


def grant(
    asked: Sequence[Sequence[Limit | Place]],
    buckets: MutableMapping[str, Bucket],
    semaphores: MutableMapping[str, Semaphore],
    now: float,
) -> list[float | None]:
    """Give each who asks all that he asks for, or none of it, in order; both mappings by key are as it is afterwards.

    Places are looked at first: who gets none spends no token.
    """
    return [_grant(each, buckets, semaphores, now) for each in asked]


def _grant(
    asked: Sequence[Limit | Place], buckets: MutableMapping[str, Bucket], semaphores: MutableMapping[str, Semaphore], now: float
) -> float | None:
    places = [each for each in asked if isinstance(each, Place)]
    waits = [0.0]
    for place in places:
        semaphore = semaphores[place.key] = semaphores.get(place.key, Semaphore()).at(now)
        if not semaphore.admits(place, now):
            semaphores[place.key], wait = semaphore.refused(place, now)
            waits.append(wait)
    if len(waits) > 1:
        return max(waits)
    limits = [each for each in asked if isinstance(each, Limit)]
    after, refusal = ask([buckets.get(key, Bucket()) for key, _ in limits], [rate for _, rate in limits], now)
    buckets.update(zip((key for key, _ in limits), after, strict=True))
    if refusal is None:
        for place in places:
            semaphores[place.key] = semaphores[place.key].taken(place, now)
    return refusal
