"""Recalls: flights that somebody else ends: revoked, of a queue that is paused, without their lease or their place.

Part of the pool, split off for its own subject. What waits ends at once; what runs is interrupted, where it may not go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from stem_actors.actors.dispatcher import Dispatcher
from stem_actors.actors.endings import Endings
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.revocations import InForce
from stem_actors.actors.run_watch import RunWatch
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.executors.frames import InterruptKind
from stem_actors.metrics import Tally
from stem_actors.model.outcome import Interrupted, Outcome, Revoked
from stem_actors.ports import Revocation

__all__ = ["Recalls"]

_NOT_HANDED = (
    Stage.WAITING,
    Stage.LIMITED,
    Stage.ANNOUNCING,
    Stage.MARKING,
    Stage.FREEING,
)  # `ACKING`: decided when the broker has answered


class Recalls:
    """Takes flights from wherever they are. Times are `Clock.monotonic()`.

    `revoked`     the revocations that are known
    `kill_after`  seconds in which a run heeds an interrupt that must not go on
    """

    def __init__(
        self,
        flights: Flights,
        line: WaitingLine,
        dispatcher: Dispatcher,
        endings: Endings,
        runs: RunWatch,
        server_now: Callable[[], float],
        kill_after: float,
        tally: Tally,
        worker: str,
    ) -> None:
        self.revoked = InForce(server_now)
        self._flights = flights
        self._line = line
        self._dispatcher = dispatcher
        self._endings = endings
        self._runs = runs
        self._kill_after = kill_after
        self._tally = tally
        self._worker = worker

    def revocation_of(self, flight: Flight) -> Revoked | None:
        """What ends a flight whose task is revoked."""
        found = self.revoked.find(flight.delivery.envelope.id)
        return None if found is None else Revoked(found.reason, found.requested_by, found.issued_at)

    def revoke(self, revocations: Sequence[Revocation], now: float) -> None:
        """What waits ends as revoked; what runs goes on, unless it is to be terminated."""
        self.revoked.add(revocations)
        terminates = {each.task_id: each.terminate for each in revocations}
        hit = self._recalled(flight for flight in self._flights if flight.delivery.envelope.id in terminates)
        ended: list[tuple[Flight, Outcome]] = []
        for flight in hit:
            outcome = self.revocation_of(flight)
            if outcome is None:
                continue
            if flight.stage in _NOT_HANDED:
                ended.append((flight, outcome))
            elif flight.stage is Stage.INSIDE and terminates[flight.delivery.envelope.id]:
                self._stop(flight, InterruptKind.REVOKED, now, outcome)
        self._line.forget(flight for flight, _ in ended)
        self._endings.finish(ended)

    def pause(self, queues: Collection[str]) -> None:
        """Hand back what waits and is of these; what runs goes on."""
        self._let_wait_elsewhere(flight for flight in self._flights if flight.delivery.lease.queue in queues)

    def lose(self, tokens: Iterable[int | str], now: float) -> None:
        """Another may hold these: stop them, drop what comes of them."""
        known = [flight for token in tokens if (flight := self._flights.get(token)) is not None]
        lost = [flight for flight in known if flight.stage is not Stage.ENDED and not (flight.is_lost or flight.is_acked)]
        for flight in self._recalled(lost):
            self._tally.count("stem_leases_lost_total", flight.delivery.lease.queue, self._worker)
            flight.is_lost = True
            if flight.stage is Stage.INSIDE:
                self._stop(flight, InterruptKind.REVOKED, now, Interrupted())
            else:
                self._line.forget([flight])
                self._endings.end(flight, Interrupted())

    def lose_places(self, holders: Collection[str], now: float) -> None:
        """Others run in the places of these: hand them back."""
        hit = [flight for flight in self._flights if any(place.holder in holders for place in flight.places)]
        hit = self._let_wait_elsewhere(flight for flight in hit if flight.stage is not Stage.ENDED and not flight.is_lost)
        for flight in hit:
            if flight.stage is Stage.INSIDE:
                self._stop(flight, InterruptKind.RELEASED, now, Interrupted())

    def release_unstarted(self) -> None:
        """Let go of all that has not started, also what is acknowledged already."""
        self._endings.let_go(flight for flight in self._recalled(self._flights) if flight.stage in _NOT_HANDED)

    def _recalled(self, flights: Iterable[Flight]) -> list[Flight]:
        """All of these, out from under those that executors run, so that they wait in line."""
        hit = list(flights)
        self._dispatcher.take_back_from_under(hit)
        return hit

    def _let_wait_elsewhere(self, flights: Iterable[Flight]) -> list[Flight]:
        """Hand back those of these that wait. Returns all of them."""
        hit = self._recalled(flights)
        self._endings.let_go(flight for flight in hit if flight.stage in _NOT_HANDED and not flight.is_acked)
        return hit

    def _stop(self, flight: Flight, kind: InterruptKind, now: float, outcome: Outcome) -> None:
        self._runs.interrupt(flight, kind, now, outcome, self._kill_after)
