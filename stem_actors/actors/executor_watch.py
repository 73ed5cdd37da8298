"""Watches the executors themselves, by what the kernel says: stopped, not dying, not leaving, grown too large.

Part of the pool, split off for its own subject; `run_watch.py` watches what they run. It ends what is to be killed through the
crew, and tells the pool what remains to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stem_actors.actors.crew import Crew
from stem_actors.actors.slots import Slot
from stem_actors.executors.vital_signs import VitalSigns, read_vital_signs

__all__ = ["ExecutorWatch", "Findings"]

UNKILLABLE_AFTER = 5.0
"""Seconds after its SIGKILL in which a process ends, unless it hangs in the kernel (a disk, a network file system)."""
_LEAVE_WITHIN = 10.0
_WEIGH_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """`stopped`: nothing runs there for now. `unkillable`: killed, and not dead. `heavy`: above the limit, after a task."""

    stopped: Sequence[Slot]
    unkillable: Sequence[Slot]
    heavy: Sequence[Slot]


class ExecutorWatch:
    """Looks at every executor, each `interval` seconds. Times are `Clock.monotonic()`."""

    def __init__(
        self,
        crew: Crew,
        patience: float,
        max_memory: int | None,
        read: Callable[[int], VitalSigns | None] = read_vital_signs,
    ) -> None:
        self._crew = crew
        self._patience = patience
        self._max_memory = max_memory
        self._read = read
        self._looked_at: float | None = None
        self._weighed_at = float("-inf")
        self.interval = min(1.0, patience / 4)

    def look(self, now: float) -> Findings:
        # Counted by our own looks: while this worker is stopped as well, its executors are not to blame.
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, 2 * self.interval)
        self._looked_at = now
        weighs = self._max_memory is not None and now - self._weighed_at >= _WEIGH_EVERY
        if weighs:
            self._weighed_at = now
        stopped: list[Slot] = []
        unkillable: list[Slot] = []
        heavy: list[Slot] = []
        for slot in self._crew.slots:
            if slot.process is None:
                continue
            if slot.killed_at is not None:
                if now - slot.killed_at > UNKILLABLE_AFTER:
                    unkillable.append(slot)
                continue
            if slot.dismissed_at is not None and now - slot.dismissed_at > _LEAVE_WITHIN:
                self._crew.kill(slot, {})
                continue
            signs = self._read(slot.process.pid)
            if signs is None:
                continue
            if self._stays_stopped(slot, signs.is_stopped, passed):
                stopped.append(slot)
            if weighs:
                slot.resident = signs.resident
                if slot.runs and not slot.is_leaving and self._max_memory is not None and signs.resident >= self._max_memory:
                    heavy.append(slot)
        return Findings(stopped, unkillable, heavy)

    def _stays_stopped(self, slot: Slot, is_stopped: bool, passed: float) -> bool:
        """Count how long it has been stopped, and kill it when that has been for long; whether it is stopped and alive."""
        slot.stopped_for = slot.stopped_for + passed if is_stopped and slot.is_stopped else 0.0
        slot.is_stopped = is_stopped
        if is_stopped and slot.stopped_for >= self._patience:
            self._crew.kill(slot, {})  # what it was running is released: who stopped it was not the task
            return False
        return is_stopped
