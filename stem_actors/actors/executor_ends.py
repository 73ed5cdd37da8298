"""Ends of executors: who is blamed for a death, and how one leaves that is worn out, heavy, one too many, or beyond a signal.

Part of the pool, split off for its own subject. `crew.py` ends and replaces processes; whom the blame hits, `outcomes.py` says.
"""

from __future__ import annotations

import logging

from stem_actors.actors.crew import Crew
from stem_actors.actors.dispatcher import Dispatcher
from stem_actors.actors.endings import Endings
from stem_actors.actors.flights import Flight, Flights
from stem_actors.actors.outcomes import blamed
from stem_actors.actors.slots import Slot
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.vital_signs import read_vital_signs
from stem_actors.metrics import Tally
from stem_actors.model.outcome import Died, Lapsed

__all__ = ["ExecutorEnds"]

_logger = logging.getLogger("stem.pool")


class ExecutorEnds:
    """Sees to what an executor leaves behind: first what it had not started, then what it was running."""

    def __init__(self, flights: Flights, crew: Crew, dispatcher: Dispatcher, endings: Endings, tally: Tally, worker: str) -> None:
        self._flights = flights
        self._crew = crew
        self._dispatcher = dispatcher
        self._endings = endings
        self._tally = tally
        self._worker = worker

    def bury(self, slot: Slot, process: ExecutorProcess, wall_clock: float) -> None:
        """It is dead, and has said its last words."""
        self._dispatcher.take_back(slot)
        self._blame(slot, process)
        self._crew.bury(slot, process, wall_clock)

    def recycle(self, slot: Slot, reason: str) -> None:
        """Let an executor leave when its running tasks have ended; what waits inside it goes to others."""
        if slot.process is None or slot.is_leaving or not slot.is_wanted:
            return
        self._tally.count("stem_executor_recycled_total", self._worker, reason)
        self._let_leave(slot, reason)
        self._crew.retire(slot)

    def scale_down(self, slot: Slot) -> None:
        """There are too many executors, and this one goes."""
        self._let_leave(slot, "scale-down")
        self._crew.let_leave(slot)

    def replace_unkillable(self, slot: Slot) -> None:
        """It was killed and does not die: what it was running is judged as if it had."""
        process = slot.process
        assert process is not None, "an empty slot is not killed"
        _logger.error(
            "executor %d does not die of SIGKILL and is replaced; it hangs in the kernel, as by a disk or a network file system "
            "that does not answer",
            process.pid,
            extra={"worker": self._worker},
        )
        self._dispatcher.take_back(slot)
        self._blame(slot, process)
        self._crew.give_up(slot, process)

    def _let_leave(self, slot: Slot, reason: str) -> None:
        if slot.process is not None:
            self._log_leaving(slot, slot.process, reason)
            self._dispatcher.take_back(slot)

    def _log_leaving(self, slot: Slot, process: ExecutorProcess, reason: str) -> None:
        signs = read_vital_signs(process.pid)
        resident = 0 if signs is None else signs.resident
        _logger.info(
            "executor %d leaves after %d task(s) with %d MiB%s: %s",
            process.pid,
            slot.runs,
            resident >> 20,
            " and is replaced" if slot.is_wanted else "",
            reason,
            extra={"worker": self._worker, "reason": reason, "tasks": slot.runs, "memory_bytes": resident},
        )

    def _blame(self, slot: Slot, process: ExecutorProcess) -> None:
        claimed = [flight for claim in process.handed if (flight := self._flights.by_claim(claim)) is not None]
        cause = process.cause_of_death()
        if claimed or not slot.is_leaving:
            kind = "ours" if slot.spares else cause.split(",")[0].split(" (")[0]
            self._tally.count("stem_executor_deaths_total", self._worker, kind)
            slot.failures += not (claimed or slot.spares)  # it died by itself
        process.handed.clear()
        ended = list(blamed(slot, claimed, cause))
        for flight, outcome in ended:
            slot.unload(flight)
            self._tally.count("stem_redeliveries_total", flight.delivery.lease.queue, type(outcome).__name__.lower())
            if isinstance(outcome, Died | Lapsed):
                _log_death_under(flight, outcome.cause)
        self._endings.finish(ended)


def _log_death_under(flight: Flight, cause: str) -> None:
    envelope, attempt = flight.delivery.envelope, flight.delivery.state.attempt
    facts = {"task": envelope.name, "id": envelope.id, "queue": envelope.queue, "attempt": attempt}
    _logger.warning("an executor died under task %s: %s", envelope.name, cause, extra=facts)
