"""How long a task is expected to run, learnt per name: decides how much waits inside executors, and how much is fetched ahead.

Pure bookkeeping. Quick to believe in longer runs, slow to believe in shorter ones: a task that waits behind an unexpectedly long
one has to be taken back, while one that could have waited costs nothing.
"""

from __future__ import annotations

__all__ = ["RunTimes"]

_SHORTER = 0.05
_LONGER = 0.5
_MOST_NAMES = 10_000


class RunTimes:
    """Run times by task name, and over all tasks."""

    def __init__(self) -> None:
        self._by_name: dict[str, float] = {}
        self.overall: float | None = None

    def expected(self, name: str) -> float | None:
        """Seconds one run is expected to take; None when none was seen."""
        return self._by_name.get(name)

    def learn(self, name: str, seconds: float) -> None:
        """One run of `name` took this long."""
        known = self._by_name.get(name)
        if known is None:
            if len(self._by_name) >= _MOST_NAMES:
                self._by_name.clear()
            known = seconds
        off = seconds - known
        self._by_name[name] = known + off * (_LONGER if off > 0 else _SHORTER)
        known = self.overall
        if known is None:
            known = seconds
        off = seconds - known
        self.overall = known + off * (_LONGER if off > 0 else _SHORTER)

    def suspect_longer(self, name: str, seconds: float) -> None:
        """A run of `name` has already taken this long and goes on."""
        if seconds > self._by_name.get(name, 0.0):
            self._by_name[name] = seconds
        if self.overall is None or seconds > self.overall:
            self.overall = seconds if self.overall is None else self.overall + (seconds - self.overall) * _SHORTER
