"""The broker's clock as a worker's actors read it: their own, and the distance between the two.

The consumer compares the two before its first fetch and after each reconnect, the heartbeat every few seconds. Reading it asks
nobody, so that the pool can look before each start.
"""

from __future__ import annotations

from stem_actors.clock import Clock
from stem_actors.ports import Broker

__all__ = ["ServerClock"]


class ServerClock:
    """What the clock of the broker's server shows. Any thread."""

    def __init__(self, clock: Clock, broker: Broker) -> None:
        self._clock = clock
        self._broker = broker
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch, by the server."""
        return self._clock.now() + self._offset

    def compare(self) -> None:
        """Look at both clocks.

        Raises:
            BrokerUnavailable: it is away, and its clock was never seen.
        """
        self._offset = self._broker.now() - self._clock.now()
