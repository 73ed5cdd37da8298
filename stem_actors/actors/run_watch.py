"""Watches what runs: soft and hard limits, interrupts that are not heeded, leases of exclusive tasks, runs worth a note.

Part of the pool, split off for its own subject. It is looked at once per tick and acts through the crew.
"""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.actors.crew import Crew
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.slots import Slot
from stem_actors.executors.frames import InterruptKind
from stem_actors.model.outcome import ErrorInfo, Failed, Interrupted, Outcome

__all__ = ["RunWatch"]

_NOTE_AFTER = 0.5
_NUDGES = 5
_CANCEL_GRACE = 1.0


class RunWatch:
    """Time limits and interrupts of everything inside executors. Times are `Clock.monotonic()`."""

    def __init__(self, flights: Flights, crew: Crew) -> None:
        self._flights = flights
        self._crew = crew

    def look(self, now: float) -> Sequence[Flight]:
        """Act on what is overdue; returns the runs that have gone on long enough to be worth a record."""
        noted: list[Flight] = []
        for flight in self._flights:
            if flight.stage is Stage.INSIDE:
                self._look_at(flight, self._crew.slots[flight.slot], now)
                if self._is_noteworthy(flight, now):
                    flight.is_noted = True
                    noted.append(flight)
        return noted

    def interrupt(
        self, flight: Flight, kind: InterruptKind, now: float, outcome: Outcome | None = None, kill_after: float | None = None
    ) -> None:
        """Stop one run. `outcome` is what a run counts as that ends by it; killed after `kill_after` seconds otherwise."""
        process = self._crew.slots[flight.slot].process
        if process is not None:
            flight.interrupt, flight.interrupt_outcome, flight.nudges_left = kind, outcome, _NUDGES
            if kill_after is not None:  # asked for again, it gets no more time
                flight.kill_at = now + kill_after if flight.kill_at is None else min(flight.kill_at, now + kill_after)
            process.interrupt(flight.claim, kind)

    def _look_at(self, flight: Flight, slot: Slot, now: float) -> None:
        if slot.process is None:
            return
        started = flight.started_at
        if flight.kill_at is not None and now >= flight.kill_at:
            self._crew.kill(slot, {flight.claim: flight.interrupt_outcome or Interrupted()})
        elif flight.is_exclusive and flight.interrupt is None and flight.deadline - now < flight.delivery.lease.visibility / 6:
            self._stop_exclusive(flight, slot, now)
        elif flight.interrupt is not None and flight.nudges_left > 0:
            flight.nudges_left -= 1
            slot.process.nudge()
        if started is None:
            return
        if flight.hard_limit is not None and now - started >= flight.hard_limit:
            self._overran(flight, slot, now)
        elif flight.soft_limit is not None and flight.interrupt is None and now - started >= flight.soft_limit:
            self.interrupt(flight, InterruptKind.SOFT_LIMIT, now)

    def _overran(self, flight: Flight, slot: Slot, now: float) -> None:
        error = ErrorInfo("HardTimeLimitExceeded", f"the task ran longer than its hard time limit of {flight.hard_limit:g} s")
        flight.hard_limit = None  # once
        if slot.is_shared:
            self.interrupt(flight, InterruptKind.REVOKED, now, Failed(error), kill_after=_CANCEL_GRACE)
        else:
            self._crew.kill(slot, {flight.claim: Failed(error)})

    def _stop_exclusive(self, flight: Flight, slot: Slot, now: float) -> None:
        """Its lease is about to run out unrenewed, and it must never run beside another run of itself."""
        if slot.is_shared:
            grace = flight.delivery.lease.visibility / 12
            self.interrupt(flight, InterruptKind.RELEASED, now, Interrupted(), kill_after=grace)
        else:
            self._crew.kill(slot, {flight.claim: Interrupted()})

    def _is_noteworthy(self, flight: Flight, now: float) -> bool:
        slot = self._crew.slots[flight.slot]
        if flight.is_noted or slot.process is None or slot.running_for(flight, now) <= _NOTE_AFTER:
            return False
        return slot.is_shared or next(iter(slot.process.handed), None) == flight.claim
