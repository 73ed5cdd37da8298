"""The burst watch: lets a worker go once there is nothing left to do. Only a worker started with `--burst` has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stem_actors.errors import BrokerUnavailable, StorageFull
from stem_actors.ports import Broker
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["BurstWatch"]

_EVERY = 0.2
_SHARE = 0.1  # of the time at most, where a look takes long
_LOOKS = 2
"""Looks in a row that find nothing: what a task enqueues in its last moment may fall between two questions of one look."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Time to look."""


class BurstWatch(StemActor):
    """Calls `leave` when the queues are empty: nothing is ready in them, and this worker holds nothing.

    What is delayed does not count (a retry waits there, too), nor what other workers hold. While the broker is away nothing is
    empty. `is_ready`: whether the worker can run tasks at all; before that it would leave without having tried.

    Owns:     nothing.      Receives: only its own ticks.      Tells: nobody.
    """

    def __init__(
        self,
        context: ActorContext,
        broker: Broker,
        queues: Sequence[str],
        holder: str,
        is_ready: Callable[[], bool],
        leave: Callable[[], None],
    ) -> None:
        super().__init__(context)
        self._broker = broker
        self._queues = queues
        self._holder = holder
        self._is_ready = is_ready
        self._leave = leave
        self._found_empty = 0

    def on_start(self) -> None:
        self.after(_EVERY, _Look())

    def on_receive(self, message: _Look) -> None:
        began = self.clock.monotonic()
        self._found_empty = self._found_empty + 1 if self._is_ready() and self._is_empty() else 0
        if self._found_empty >= _LOOKS:
            self._leave()
            return
        self.after(max(_EVERY, (self.clock.monotonic() - began) / _SHARE), _Look())

    def _is_empty(self) -> bool:
        try:
            # What waits is asked for first: it may meanwhile come to us, but not disappear from both.
            return not any(depth.pending for depth in self._broker.depths(self._queues)) and not self._broker.held(self._holder)
        except (BrokerUnavailable, StorageFull):
            return False
