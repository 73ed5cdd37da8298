"""Endings: each flight's one outcome on its way to the settler, until the broker has answered for it.

Part of the pool, split off for its own subject. What an outcome is, `outcomes.py` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stem_actors.actors import messages as m
from stem_actors.actors.clearance import Clearance
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.outcomes import final
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.model.outcome import Interrupted, Limited, Outcome, Succeeded
from stem_actors.ports import Answer, Stale

__all__ = ["Endings"]

_ENDED = Stage.ENDED  # looked at for every task, see `flights.py`


class Endings:
    """`counts`: what the broker has answered for, by `succeeded` and `other`."""

    def __init__(self, flights: Flights, line: WaitingLine, clearance: Clearance, tell: Callable[[Any], object]) -> None:
        self._flights = flights
        self._line = line
        self._clearance = clearance
        self._told = clearance.told
        self._tell = tell
        self.counts = Counter[str]()

    def finish(self, judged: Iterable[tuple[Flight, Outcome]]) -> None:
        """These end as they are judged."""
        runs = [self.end(flight, outcome) for flight, outcome in judged]
        self.tell([run for run in runs if run is not None])

    def let_go(self, flights: Iterable[Flight]) -> None:
        """These go back to the broker, uncharged; out of line, where they wait."""
        released = list(flights)
        if released:
            self._line.forget(released)
            self.finish([(flight, Interrupted()) for flight in released])

    def end(self, flight: Flight, outcome: Outcome, started_at: float = 0.0, seconds: float = 0.0) -> m.Run | None:
        """What to tell the settler of one; None when its lease is lost, and nobody asks any more."""
        if flight.runs_alone:
            self._line.ended(flight)
        if self._told:
            self._told.pop(flight.claim, None)
        if flight.limits and not isinstance(outcome, Limited):
            self._clearance.leave(flight)
        if flight.is_acked:
            outcome = final(outcome)
        if flight.is_lost:
            self._flights.remove(flight.token)
            return None
        flight.stage = _ENDED
        flight.run = run = m.Run(flight.delivery, outcome, flight.policy, started_at, seconds, flight.is_acked)
        return run

    def tell(self, runs: Sequence[m.Run]) -> None:
        if runs:
            self._tell(m.Finished(runs))

    def tell_again(self) -> None:
        """A new settler: whatever has no answer yet. Of two settlements the second finds nothing to do."""
        self.tell([flight.run for flight in self._flights if flight.run is not None])

    def settled(self, answers: Sequence[tuple[int | str, Answer]]) -> None:
        """The broker has answered for these: they are off the books."""
        remove, succeeded, others = self._flights.remove, 0, 0
        for token, answer in answers:
            flight = remove(token)
            if flight is not None and flight.run is not None and not isinstance(answer, Stale):
                if isinstance(flight.run.outcome, Succeeded):
                    succeeded += 1
                else:
                    others += 1
        self.counts.update(succeeded=succeeded, other=others)
