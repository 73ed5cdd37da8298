"""Clearance: what must have happened at the broker before a delivery starts. The pool waits for nobody, so the settler does it.

In this order, of which most deliveries need nothing: rate limits allow it; a result store with a server of its own has heard of
the redelivery; a suspect is marked; what runs once at most is acknowledged. A flight's stage says what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stem_actors.actors import messages as m
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Limited, Outcome, Recorded
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Answer, Done

__all__ = ["Clearance"]


class Clearance:
    """The pool's questions to the settler that are under way.

    `acked`  by claim, those that are acknowledged or about to be, and not yet handed to an executor
    """

    def __init__(self, flights: Flights, line: WaitingLine, announces: bool, tell: Callable[[Any], object]) -> None:
        self._flights = flights
        self._line = line
        self._announces = announces
        self._tell = tell
        self.acked: dict[int, Flight] = {}

    def admit(self, flights: Sequence[Flight]) -> None:
        """See to all that they need, and bring them into line."""
        limited = [flight for flight in flights if flight.limits]
        for flight in limited:
            flight.stage = Stage.LIMITED
        self._permit(limited)
        self._announce([flight for flight in flights if not flight.limits])

    def _permit(self, flights: Sequence[Flight]) -> None:
        if flights:
            self._tell(m.AskPermits([m.Permit(flight.delivery, flight.limits) for flight in flights]))

    def permitted(self, answers: Mapping[int | str, Limited | None]) -> list[tuple[Flight, Outcome]]:
        """The limiter has spoken; those that it puts off end."""
        asked = self._waiting(answers, Stage.LIMITED)
        self._announce([flight for flight in asked if answers[flight.token] is None])
        return [(flight, outcome) for flight in asked if (outcome := answers[flight.token]) is not None]

    def _announce(self, flights: Sequence[Flight]) -> None:
        """Where results have a server of their own: what an earlier holder still writes there must be refused."""
        announced = []
        for flight in flights:
            if self._announces and flight.delivery.state.delivery_count > 1:
                flight.stage = Stage.ANNOUNCING
                announced.append(flight.delivery)
            else:
                self._line.add(flight)
        if announced:
            self._tell(m.Announce(announced))

    def announced(self, records: Mapping[int | str, TaskRecord | None]) -> list[tuple[Flight, Outcome]]:
        """The result store has heard of them; those whose end it knows already end as it says."""
        ended: list[tuple[Flight, Outcome]] = []
        for flight in self._waiting(records, Stage.ANNOUNCING):
            record = records[flight.token]
            if record is None:
                self._line.add(flight)
            else:
                is_dead = record.state is TaskState.FAILED
                ended.append((flight, Recorded(record.meta.get("deadLetter", "max-retries-exhausted") if is_dead else None)))
        return ended

    def mark_next(self) -> None:
        """Mark the suspect whose turn it is, if there is one."""
        if (suspect := self._line.next_suspect()) is not None:
            self._tell(m.MarkStarted(suspect.delivery.lease))

    def marked(self, token: int | str, answer: Answer) -> bool:
        """The suspect may start, in an executor of its own; False: its lease is lost."""
        suspect = self._line.suspect
        if suspect is None or suspect.token != token:
            return True
        if isinstance(answer, Done) and suspect.stage is Stage.MARKING:
            suspect.is_marked = True
            self._line.put_first([suspect])
        return isinstance(answer, Done)

    def ack_first(self, flight: Flight) -> None:
        """It starts once at most: the broker hears that it is done before it starts."""
        flight.stage = Stage.ACKING
        self.acked[flight.claim] = flight
        self._tell(m.AckFirst(flight.delivery))

    def tell_again(self) -> None:
        """A new settler: whatever has no answer yet."""
        self._permit([flight for flight in self._flights if flight.stage is Stage.LIMITED])
        suspect = self._line.suspect
        if suspect is not None and suspect.stage is Stage.MARKING:
            self._tell(m.MarkStarted(suspect.delivery.lease))
        self._announce([flight for flight in self._flights if flight.stage is Stage.ANNOUNCING])
        for flight in self.acked.values():
            if flight.stage is Stage.ACKING:
                self._tell(m.AckFirst(flight.delivery))

    def _waiting(self, tokens: Mapping[int | str, Any], stage: Stage) -> list[Flight]:
        """Those of an answer's flights that still wait for it: one may be revoked, lost or released since it was asked."""
        known = (self._flights.get(token) for token in tokens)
        return [flight for flight in known if flight is not None and flight.stage is stage]
