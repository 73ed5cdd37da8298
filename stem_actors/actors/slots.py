"""A place for one executor process, over all the processes that fill it, and how much work it may be given now.

Plain bookkeeping for the pool, which is its only user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from stem_actors.actors.flights import Flight
from stem_actors.executors.process import ExecutorProcess
from stem_actors.model.outcome import Outcome

__all__ = ["Slot", "SlotState"]

INSIDE = 0.004
"""Seconds of work that may wait inside an executor: hides the round trip to its worker, and is quickly taken back."""
MOST_INSIDE = 64
LIVELY = 0.05
"""An executor that reported nothing for so long gets no more work to wait inside it."""


class SlotState(Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPED = "stopped"
    LEAVING = "leaving"
    EMPTY = "empty"


@dataclass(slots=True, eq=False)
class Slot:
    """One executor's place. Times are `Clock.monotonic()`.

    `width`         runs at once; more than one where they share a process: coroutines, or threads
    `most_runs`     an executor gets so many tasks in its life
    `runs`          tasks that ended in this executor
    `is_wanted`     the worker is to have an executor here; one that is not leaves when what it runs has ended
    `is_stopped`    it was seen in state T, and has been there for `stopped_for` seconds
    `resident`      its memory, in bytes, when it was last looked at
    `killed_at`     when we first sent it SIGKILL; `dismissed_at`: when it was told to leave
    `ticket`        identifies the start that was asked for last; an older one that comes late is not wanted
    `expected`      seconds of work inside, as predicted
    `reserved_for`  a flight that shares no process
    `verdicts`      outcomes of claims whose process we are killing, by claim
    `spares`        what was running beside those is released, since we did the killing
    """

    index: int
    is_async: bool
    width: int
    most_runs: int | None = None
    process: ExecutorProcess | None = None
    ticket: int = 0
    is_ready: bool = False
    is_wanted: bool = True
    is_leaving: bool = False
    asked_at: float = 0.0
    active_at: float = 0.0
    expected: float = 0.0
    failures: int = 0
    reserved_for: Flight | None = None
    verdicts: dict[int, Outcome] = field(default_factory=dict)
    spares: bool = False
    runs: int = 0
    is_stopped: bool = False
    stopped_for: float = 0.0
    resident: int = 0
    killed_at: float | None = None
    dismissed_at: float | None = None

    @property
    def is_shared(self) -> bool:
        """Whether its executor starts tasks as they come and ends them in any order; else one by one, and some wait inside."""
        return self.is_async or self.width > 1

    @property
    def inside(self) -> int:
        """Claims that have no outcome yet."""
        return 0 if self.process is None else len(self.process.handed)

    @property
    def state(self) -> SlotState:
        if self.process is None:
            return SlotState.EMPTY
        if not self.is_ready:
            return SlotState.STARTING
        if self.is_stopped:
            return SlotState.STOPPED
        if self.is_leaving or not self.is_wanted:
            return SlotState.LEAVING
        return SlotState.BUSY if self.inside else SlotState.IDLE

    def is_open(self, now: float) -> bool:
        """Whether it takes work at this moment."""
        if self.process is None or not self.is_ready or self.is_leaving or not self.is_wanted:
            return False
        if self.reserved_for is not None or self.verdicts:
            return False
        inside = len(self.process.handed)
        if self.is_stopped or self.killed_at is not None:
            return False
        if self.most_runs is not None and self.runs + inside >= self.most_runs:
            return False
        if self.is_shared:
            return inside < self.width
        if inside == 0:
            return True
        # Half empty only: work goes over in batches, not one by one.
        return inside <= MOST_INSIDE // 2 and self.expected < INSIDE / 2 and now - self.active_at < LIVELY

    def takes(self, flight: Flight, boarding: int = 0) -> bool:
        """Whether `flight` may join what is inside and the `boarding` tasks that are about to be."""
        inside = boarding if self.process is None else len(self.process.handed) + boarding
        if self.most_runs is not None and self.runs + inside >= self.most_runs:
            return False
        if flight.runs_alone:
            return inside == 0
        if self.is_shared:
            return inside < self.width
        if inside == 0:
            return True
        return inside < MOST_INSIDE and flight.expected is not None and self.expected + flight.expected <= INSIDE

    def running_for(self, flight: Flight, now: float) -> float:
        """Seconds a flight inside has been running at most: since it came, one by one since the slot's last sign of life."""
        return now - (flight.received_at if self.is_shared else max(self.active_at, flight.received_at))

    def unload(self, flight: Flight) -> None:
        """A flight leaves: it ended, or was taken back."""
        if flight.expected is not None:
            left = self.expected - flight.expected
            self.expected = left if left > 0.0 else 0.0
        if self.reserved_for is flight:
            self.reserved_for = None
        flight.slot = -1

    def vacate(self) -> None:
        """Its process is gone."""
        self.process = None
        self.is_ready = self.is_leaving = self.spares = False
        self.is_stopped = False
        self.expected = self.stopped_for = 0.0
        self.runs = self.resident = 0
        self.killed_at = self.dismissed_at = None
        self.reserved_for = None
        self.verdicts.clear()
