"""An event loop in virtual time: what waits in it, waits by the clock of the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from stem_actors.clock import Clock

__all__ = ["VirtualLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _NoSelector:
    """There is no outside world: sockets and pipes are not to be had in this loop."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready when it is told to, and never waits. Blocking calls that were to go to a thread run at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._stem_clock = clock
        self._selector = _NoSelector()

    def time(self) -> float:
        return self._stem_clock.monotonic()

    def run_ready(self) -> None:
        """Run all that can run at this moment."""
        loop: Any = self  # its queues have no public names
        while loop._ready or (loop._scheduled and loop._scheduled[0]._when <= self.time()):
            self.call_soon(self.stop)
            self.run_forever()

    def next_due(self) -> float | None:
        """When there will be something to run; None: when it is told something."""
        loop: Any = self
        return min((handle._when for handle in loop._scheduled if not handle.cancelled()), default=None)

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody else wakes this loop."""

    def abandon(self) -> None:
        """Drop what has not ended, without a word."""
        self.set_exception_handler(lambda loop, context: None)
        if not self.is_closed():
            self.close()
