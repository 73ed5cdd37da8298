"""What the pool has not handed to an executor: in line by kind, suspects one at a time, and what its lease's end has stopped.

Plain bookkeeping for the pool, which is its only user.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from stem_actors.actors.flights import Flight, Stage

__all__ = ["WaitingLine"]

_WAITING = Stage.WAITING
_UNKNOWN = 1.0  # seconds: between what is known to be short and what is known to be long


class WaitingLine:
    """Flights in stage `WAITING` (and the suspect that is being marked), in the order in which they should start.

    `suspect` is the one suspect that is marked, handed over or running; the others wait for its end.
    """

    def __init__(self) -> None:
        self._by_kind: dict[bool, deque[Flight]] = {False: deque(), True: deque()}
        self._suspects: deque[Flight] = deque()
        self._stalled: list[Flight] = []
        self.suspect: Flight | None = None

    def __len__(self) -> int:
        return sum(map(len, self._by_kind.values())) + len(self._suspects) + len(self._stalled)

    def of_kind(self, is_async: bool) -> deque[Flight]:
        """Those that may start now, first one first; taken from the left by whoever hands them over."""
        return self._by_kind[is_async]

    @property
    def suspects(self) -> Sequence[Flight]:
        """Those that wait for the one suspect to end."""
        return self._suspects

    def add(self, flight: Flight) -> None:
        """To the end of its line."""
        flight.stage = _WAITING
        if flight.runs_alone and flight.is_suspect:
            self._suspects.append(flight)
        else:
            self._by_kind[flight.is_async].append(flight)

    def put_first(self, flights: Sequence[Flight]) -> None:
        """To the head of their lines, in this order."""
        for flight in reversed(flights):
            flight.stage = _WAITING
            self._by_kind[flight.is_async].appendleft(flight)

    def stall(self, flight: Flight) -> None:
        """Nothing starts past its lease's end; a renewal brings it back."""
        flight.stage = _WAITING
        self._stalled.append(flight)

    def revive(self, now: float) -> None:
        """Bring back those whose leases have been renewed. Those of which the broker still has to hear go to the end: they wait
        for those of which it has heard already, and must not stand before them.
        """
        renewed = [flight for flight in self._stalled if flight.deadline > now]
        self._stalled = [flight for flight in self._stalled if flight.deadline <= now]
        self.put_first([flight for flight in renewed if not flight.tells_first])
        for flight in renewed:
            if flight.tells_first:
                self._by_kind[flight.is_async].append(flight)

    def next_suspect(self) -> Flight | None:
        """The suspect whose turn it is, from now on the one; None while another has not ended, or there is none.

        Those expected to be short go first: one that runs for minutes would hold up all others of its worker.
        """
        if self.suspect is not None or not self._suspects:
            return None
        self.suspect = min(self._suspects, key=_expected)
        self._suspects.remove(self.suspect)
        self.suspect.stage = Stage.MARKING
        return self.suspect

    def ended(self, flight: Flight) -> None:
        """It has an outcome."""
        if self.suspect is flight:
            self.suspect = None

    def forget(self, flights: Iterable[Flight]) -> None:
        """Take them out, wherever they wait."""
        gone = set(map(id, flights))
        for line in (*self._by_kind.values(), self._suspects):
            if line and any(id(flight) in gone for flight in line):
                kept = [flight for flight in line if id(flight) not in gone]
                line.clear()
                line.extend(kept)
        self._stalled = [flight for flight in self._stalled if id(flight) not in gone]


def _expected(flight: Flight) -> float:
    """How long it will run, as far as is known."""
    return _UNKNOWN if flight.expected is None else flight.expected
