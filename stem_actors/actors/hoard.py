"""The hoard: what a worker holds and will not start within a second, although another worker may be idle.

Part of the pool, split off for its own subject. Source: docs/explanation/flow-control.md, "Not to hoard".
"""

from __future__ import annotations

from collections.abc import Iterable

from stem_actors.actors.credit import Credit
from stem_actors.actors.crew import Crew
from stem_actors.actors.flights import Flight
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.executors.prediction import RunTimes

__all__ = ["Hoard"]

_LATE_AFTER = 1.0


class Hoard:
    """Says what to hand back. Times are `Clock.monotonic()`.

    `is_growing`: what waits will not start soon, so only free slots are worth filling.
    """

    def __init__(self, line: WaitingLine, crew: Crew, run_times: RunTimes, credit: Credit) -> None:
        self.is_growing = False
        self._line = line
        self._crew = crew
        self._run_times = run_times
        self._credit = credit

    def look(self, now: float) -> list[Flight]:
        """What to hand back now."""
        mean = self._run_times.overall or 0.0
        self.is_growing = mean > _LATE_AFTER or self._is_stuffed(now)
        # Suspects wait for one another, however short the tasks are that the credit is reckoned by.
        late = _late([*self._line.suspects, *(self._line.of_kind(False) if self.is_growing else ())], now)
        if self._credit.is_idle(now):
            # Coroutines that run alone hold up all behind them: a share of these for those who also have nothing more.
            coroutines = _late(self._line.of_kind(True), now)
            late += coroutines[len(coroutines) // 2 :]
        return late

    def _is_stuffed(self, now: float) -> bool:
        """Whether no executor has ended anything for long that others wait behind."""
        slots = [slot for slot in self._crew.slots if slot.is_wanted and not slot.is_async]
        return bool(slots) and all(slot.inside >= slot.width and now - slot.active_at > _LATE_AFTER / 2 for slot in slots)


def _late(waiting: Iterable[Flight], now: float) -> list[Flight]:
    """Those that have waited for long, except what their clearance would have to be paid for twice."""
    old = [flight for flight in waiting if now - flight.received_at > _LATE_AFTER]
    return [flight for flight in old if flight.places or not (flight.is_marked or flight.is_acked or flight.limits)]
