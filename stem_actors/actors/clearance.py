"""Clearance: what must have happened at the broker before a delivery starts. The pool waits for nobody, so the settler does it.

In this order, of which most deliveries need nothing: limits of rate and concurrency allow it; a result store with a server of its
own has heard of the redelivery; what was lost before is marked; what runs once at most is acknowledged; what is unique until its
start gives its key back. A flight's stage says what it waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stem_actors.actors import messages as m
from stem_actors.actors.catalogue import places_of
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Limited, Outcome, Recorded
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Answer, Done

__all__ = ["Clearance"]


class Clearance:
    """The pool's questions to the settler that are under way.

    `told`  by claim, those of which the broker hears something as they start, and that are not yet handed to an executor
    """

    def __init__(self, flights: Flights, line: WaitingLine, announces: bool, tell: Callable[[Any], object]) -> None:
        self._flights = flights
        self._line = line
        self._announces = announces
        self._tell = tell
        self.told: dict[int, Flight] = {}

    def admit(self, flights: Sequence[Flight]) -> None:
        """See to all that they need, and bring them into line."""
        limited = [flight for flight in flights if flight.limits]
        for flight in limited:
            flight.stage = Stage.LIMITED
        self._permit(limited)
        self._announce([flight for flight in flights if not flight.limits])

    def _permit(self, flights: Sequence[Flight]) -> None:
        if flights:
            self._tell(m.AskPermits([m.Permit(flight.delivery, flight.limits, flight.expected) for flight in flights]))

    def permitted(self, answers: Mapping[int | str, Limited | None]) -> list[tuple[Flight, Outcome]]:
        """The limiter has spoken; those that it puts off end."""
        asked = self._waiting(answers, Stage.LIMITED)
        granted = [flight for flight in asked if answers[flight.token] is None]
        for flight in granted:
            flight.places = places_of(flight.delivery, flight.limits)
        self._announce(granted)
        return [(flight, outcome) for flight in asked if (outcome := answers[flight.token]) is not None]

    def leave(self, flight: Flight) -> None:
        """It has ended, here at least: what it holds of concurrency limits, or is just asking for, is free."""
        if places := flight.places or places_of(flight.delivery, flight.limits):
            self._tell(m.FreePlaces(places))

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

    def may_tell(self, flight: Flight, most: int) -> bool:
        """Whether the broker may hear of it now: of a few at a time, since what is left of them is lost; and of one that runs
        alone at a time, since what is marked counts as started. Of one that is about to start it may hear all there is.
        """
        if flight.claim in self.told:
            return True
        return len(self.told) < most and not (flight.runs_alone and any(other.runs_alone for other in self.told.values()))

    def marked(self, token: int | str, answer: Answer) -> bool:
        """It may start, in an executor of its own; False: its lease is lost."""
        for flight in self._waiting({token: answer}, Stage.MARKING):
            if not isinstance(answer, Done):
                return False
            flight.is_marked = True
            self._was_told(flight)
        return True

    def tell_first(self, flight: Flight) -> None:
        """Before it starts the broker hears that it does, if it was lost before; that it is done, if it starts once at most; that
        its key is free.
        """
        stage = _next_word(flight)
        assert stage is not None, "the pool asks for those that tell first"
        flight.stage = stage
        self.told[flight.claim] = flight
        self._tell_of(flight)

    def _tell_of(self, flight: Flight) -> None:
        match flight.stage:
            case Stage.MARKING:
                self._tell(m.MarkStarted(flight.delivery.lease))
            case Stage.ACKING:
                self._tell(m.AckFirst(flight.delivery))
            case Stage.FREEING:
                self._tell(m.FreeKey(flight.delivery.lease))

    def key_freed(self, token: int | str, answer: Answer) -> bool:
        """It may start; False: its lease is lost."""
        for flight in self._waiting({token: answer}, Stage.FREEING):
            if not isinstance(answer, Done):
                return False
            flight.frees_key = False
            self._was_told(flight)
        return True

    def _was_told(self, flight: Flight) -> None:
        flight.tells_first = _next_word(flight) is not None
        self._line.put_first([flight])

    def tell_again(self) -> None:
        """A new settler: whatever has no answer yet."""
        self._permit([flight for flight in self._flights if flight.stage is Stage.LIMITED])
        suspect = self._line.suspect
        if suspect is not None and suspect.stage is Stage.MARKING:
            self._tell(m.MarkStarted(suspect.delivery.lease))
        self._announce([flight for flight in self._flights if flight.stage is Stage.ANNOUNCING])
        for flight in self.told.values():
            self._tell_of(flight)

    def _waiting(self, tokens: Mapping[int | str, Any], stage: Stage) -> list[Flight]:
        """Those of an answer's flights that still wait for it: one may be revoked, lost or released since it was asked."""
        known = (self._flights.get(token) for token in tokens)
        return [flight for flight in known if flight is not None and flight.stage is stage]


def _next_word(flight: Flight) -> Stage | None:
    """What the broker has to hear next before it starts. What is acknowledged first has no lease that a mark could be on."""
    if flight.runs_alone and not (flight.is_marked or flight.acks_early):
        return Stage.MARKING
    if flight.acks_early:
        return None if flight.is_acked else Stage.ACKING
    return Stage.FREEING if flight.frees_key else None
