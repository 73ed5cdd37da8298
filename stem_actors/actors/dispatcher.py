"""The dispatcher: gives executors what waits in line, and takes back what they have not started.

Part of the pool, split off for its own subject. How much a slot takes, `slots.py` says; what must have happened at the broker
before a task starts, `clearance.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from stem_actors.actors.clearance import Clearance
from stem_actors.actors.crew import Crew
from stem_actors.actors.endings import Endings
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.slots import Slot
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.clock import Clock
from stem_actors.executors.frames import Handed
from stem_actors.model.outcome import Expired

__all__ = ["Dispatcher"]

_MOST_BYTES_AT_ONCE = 262_144  # an executor starts a task when all that was handed over with it has arrived
_INSIDE = Stage.INSIDE  # looked at for every task, see `flights.py`


class Dispatcher:
    """Moves flights between the line and the executors."""

    def __init__(
        self,
        flights: Flights,
        line: WaitingLine,
        clearance: Clearance,
        crew: Crew,
        endings: Endings,
        clock: Clock,
        server_now: Callable[[], float],
        max_payload_bytes: int,
    ) -> None:
        self._flights = flights
        self._line = line
        self._clearance = clearance
        self._told = clearance.told
        self._crew = crew
        self._endings = endings
        self._clock = clock
        self._server_now = server_now
        self._max_payload_bytes = max_payload_bytes
        self._is_closing = False

    def close(self) -> None:
        """Of those that are told of one by one, none is any more."""
        self._is_closing = True

    def dispatch(self) -> None:
        """Give executors what waits, as far as they take it, evenly."""
        if not self._is_closing:
            self._clearance.mark_next()
        for is_async in (False, True):
            waiting = self._line.of_kind(is_async)
            if not waiting:
                continue
            now = self._clock.monotonic()
            open_slots = self._crew.open_slots(is_async, now)
            for position, slot in enumerate(open_slots):
                if not waiting:
                    break
                self._fill(slot, waiting, math.ceil(len(waiting) / (len(open_slots) - position)), now)

    def _fill(self, slot: Slot, waiting: deque[Flight], share: int, now: float) -> None:
        tasks: list[Handed] = []
        size = 0
        while waiting and len(tasks) < share:
            flight = waiting[0]
            if flight.deadline <= now:
                self._line.stall(waiting.popleft())
                continue
            if flight.expires_at is not None and flight.expires_at <= self._server_now():
                self._endings.finish([(waiting.popleft(), Expired())])
                continue
            size += flight.size
            if not slot.takes(flight, len(tasks)) or (tasks and size > _MOST_BYTES_AT_ONCE):
                break
            if flight.tells_first:
                if not self._clearance.may_tell(flight, len(self._crew.slots)):
                    break
                self._clearance.tell_first(waiting.popleft())
                continue
            waiting.popleft()
            tasks.append(self._board(slot, flight))
            if flight.runs_alone:
                slot.reserved_for = flight
                break
        if tasks:
            self._crew.hand(slot, tasks, now)

    def _board(self, slot: Slot, flight: Flight) -> Handed:
        """Note that a flight goes into a slot; what its executor needs to know."""
        flight.stage = _INSIDE
        flight.slot = slot.index
        if self._told:
            self._told.pop(flight.claim, None)
        if flight.expected is not None:
            slot.expected += flight.expected
        _, state, _, body = flight.delivery
        return Handed(
            flight.claim,
            body,
            state.attempt,
            flight.deadline,
            flight.hard_limit,
            flight.soft_limit is not None or flight.hard_limit is not None,
            flight.ignore_result,
            self._max_payload_bytes,
        )

    def take_back(self, slot: Slot) -> None:
        """Get back what the slot's executor has not started, to the head of the line."""
        if slot.process is None:
            return
        taken = [flight for claim in slot.process.take_back() if (flight := self._flights.by_claim(claim)) is not None]
        for flight in taken:
            slot.unload(flight)
        self._line.put_first(taken)

    def take_back_from_under(self, flights: Sequence[Flight]) -> None:
        """Some of these may wait inside an executor: get them back, so that what is still inside runs."""
        for index in {flight.slot for flight in flights if flight.stage is _INSIDE}:
            if not self._crew.slots[index].is_shared:
                self.take_back(self._crew.slots[index])
