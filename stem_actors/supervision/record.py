"""What a supervisor keeps about one child over all its lives, and the arithmetic of its restarts.

Belongs to one supervisor and is touched by its thread alone; `statistics` may be called from others.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from stem_actors.supervision.child import ChildSpec
from stem_actors.supervision.directory import Life
from stem_actors.supervision.events import ChildStatistics, SupervisorStatistics
from stem_actors.supervision.reasons import ExitReason
from stem_actors.supervision.timers import Timer

__all__ = ["ChildRecord", "State"]


class State(enum.Enum):
    """Where a child stands."""

    IDLE = "idle"
    """To be started, now or after its backoff."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    """Not to be started again."""


@dataclass(slots=True)
class ChildRecord:
    """One child: its spec, its present life if any, and what is left of those before."""

    spec: ChildSpec
    index: int
    state: State = State.IDLE
    life: Life | None = None
    generation: int = 0
    timer: Timer | None = None
    """Of the backoff, the start or the stop: only one of them can be going on."""
    not_before: float = 0.0
    restart_because: tuple[ExitReason, str] | None = None
    """Why the next start is a restart, and whose end is the cause; None for a first start."""
    verdict: ExitReason | None = None
    """What its end will count as, when that is decided before it ends."""
    restarts: Counter[str] = field(default_factory=Counter)
    progress_at: float = 0.0
    _started_at: float | None = None
    _restart_times: deque[float] = field(default_factory=deque)
    _row: int = 0  # restarts in a row
    _handled: int = -1  # messages handled at the last look
    _busy_with: int = -1  # the one that was being handled then
    _busy_for: float = 0.0

    def cancel_timer(self) -> None:
        """Forget what was to happen to it next."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def launched(self, life: Life) -> None:
        """A new life begins."""
        self.state = State.STARTING
        self.life = life
        self._started_at = None
        self._handled = self._busy_with = -1

    def started(self, now: float) -> None:
        """It got through its start."""
        self.state = State.RUNNING
        self._started_at = self.progress_at = now

    def plan_restart(self, reason: ExitReason, now: float, randomness: random.Random) -> bool:
        """Set when to start it again after it ended by itself; False when that would be once too often."""
        intensity, times = self.spec.intensity, self._restart_times
        while times and times[0] <= now - intensity.period:
            times.popleft()
        if len(times) >= intensity.restarts:
            self.state = State.DONE
            return False
        times.append(now)
        if self._started_at is not None and now - self._started_at >= intensity.period:
            self._row = 0
        self._row += 1
        self.restarts[reason.label] += 1
        self.restart_because = reason, self.spec.id
        self.not_before = now + self.spec.backoff.delay(self._row, randomness)
        self.state = State.IDLE
        return True

    def overruns(self, now: float, gap: float) -> bool:
        """Whether its handler has been at one message beyond its deadline; `gap` is the time since the last look.

        Counted in looks rather than by the clock, so that a host that slept does not find all its actors stuck.
        """
        life = self.life
        if life is None or self.state is not State.RUNNING:
            return False
        handled, handler = life.handled, life.handler
        if handled != self._handled:
            self._handled, self.progress_at = handled, now
        if handler is None:
            self._busy_with = -1
            return False
        if self._busy_with != handled:
            self._busy_with, self._busy_for = handled, 0.0
            return False
        self._busy_for += gap
        return self.spec.handler_deadline is not None and self._busy_for >= self.spec.handler_deadline

    def statistics(self, now: float, nested: SupervisorStatistics | None) -> ChildStatistics:
        """A copy for others."""
        life = self.life
        return ChildStatistics(
            id=self.spec.id,
            state=self.state.value,
            generation=self.generation,
            restarts=dict(self.restarts),
            mailbox_depth=0 if life is None else life.mailbox.depth(),
            progress_age=0.0 if life is None or life.handled != self._handled else max(0.0, now - self.progress_at),
            handler="none" if life is None else life.handler_name(),
            nested=nested,
        )
