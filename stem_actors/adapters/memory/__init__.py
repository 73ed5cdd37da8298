"""Memory: the contract within one process, for tests and single-process programs; also the twin in property tests."""

from __future__ import annotations

from stem_actors.adapters.memory.broker import MemoryBroker
from stem_actors.adapters.memory.control import MemoryControl
from stem_actors.adapters.memory.heartbeats import MemoryHeartbeats
from stem_actors.adapters.memory.locks import MemoryLocks
from stem_actors.adapters.memory.pauses import MemoryPauses
from stem_actors.adapters.memory.rate_limits import MemoryRateLimits
from stem_actors.adapters.memory.results import MemoryResults
from stem_actors.adapters.memory.revocations import MemoryRevocations
from stem_actors.adapters.memory.space import Space
from stem_actors.clock import Clock
from stem_actors.model.lapse import Retention

__all__ = ["MemoryServer", "MemorySpace"]


class MemoryServer:
    """What takes the place of a server: the namespaces of one `open_stores` call. Gone when the last store is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spaces: dict[str, Space] = {}

    def namespace(self, name: str) -> MemorySpace:
        return MemorySpace(self._spaces.setdefault(name, Space(self._clock)))


class MemorySpace:
    """One namespace, and its stores."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def broker(self, retention: Retention) -> MemoryBroker:
        return MemoryBroker(self.space, retention)

    def results(self, ttl: float) -> MemoryResults:
        return MemoryResults(self.space, ttl)

    def revocations(self) -> MemoryRevocations:
        return MemoryRevocations(self.space)

    def pauses(self) -> MemoryPauses:
        return MemoryPauses(self.space)

    def locks(self) -> MemoryLocks:
        return MemoryLocks(self.space)

    def rate_limits(self) -> MemoryRateLimits:
        return MemoryRateLimits(self.space)

    def heartbeats(self) -> MemoryHeartbeats:
        return MemoryHeartbeats(self.space)

    def control(self) -> MemoryControl:
        return MemoryControl(self.space)
