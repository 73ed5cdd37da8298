"""The timers of one actor: messages on their way to the actor that set them.

Belongs to a mailbox, which asks when to wake and for what is due. Touched by the owner's thread alone.
"""

from __future__ import annotations

import heapq
from itertools import count

__all__ = ["Timer", "Timers"]

_FEW = 64


class Timer:
    """A message on its way to the actor that set it."""

    __slots__ = ("_timers", "due", "message")

    def __init__(self, timers: Timers, due: float, message: object) -> None:
        self._timers: Timers | None = timers
        self.due = due
        """When it comes, by the clock's `monotonic()`."""
        self.message = message

    @property
    def is_pending(self) -> bool:
        """Whether the message is still to come."""
        return self._timers is not None

    def cancel(self) -> None:
        """Keep the message from coming. Too late or twice: nothing happens. Owner's thread only."""
        timers, self._timers = self._timers, None
        if timers is not None:
            timers._cancelled_one()

    def _fire(self) -> object:
        self._timers = None
        return self.message


class Timers:
    """Timers by due time; those due at the same time come in the order they were set."""

    __slots__ = ("_cancelled", "_heap", "_ids")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._ids = count()
        self._cancelled = 0

    def add(self, due: float, message: object) -> Timer:
        """Have `message` come at `due`."""
        timer = Timer(self, due, message)
        heapq.heappush(self._heap, (due, next(self._ids), timer))
        return timer

    def next_due(self) -> float | None:
        """When the first one is due; None without timers."""
        heap = self._heap
        while heap and heap[0][2]._timers is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def pop(self) -> object:
        """The message of the one that `next_due` spoke of."""
        return heapq.heappop(self._heap)[2]._fire()

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def _cancelled_one(self) -> None:
        """Cancelled timers stay in the heap until they are many: taking one out costs more than leaving it."""
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_pending]
            heapq.heapify(self._heap)
            self._cancelled = 0
