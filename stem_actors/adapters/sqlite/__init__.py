"""SQLite: one file, several processes, no server. What runs when nothing is configured."""

from __future__ import annotations

from pathlib import Path

from stem_actors.adapters.sqlite.broker import SqliteBroker
from stem_actors.adapters.sqlite.connection import WRITE_DEADLINE, Database, Synchronous
from stem_actors.adapters.sqlite.control import SqliteControl
from stem_actors.adapters.sqlite.heartbeats import SqliteHeartbeats
from stem_actors.adapters.sqlite.locks import SqliteLocks
from stem_actors.adapters.sqlite.pauses import SqlitePauses
from stem_actors.adapters.sqlite.rate_limits import SqliteRateLimits
from stem_actors.adapters.sqlite.results import SqliteResults
from stem_actors.adapters.sqlite.revocations import SqliteRevocations
from stem_actors.clock import Clock
from stem_actors.model.lapse import Retention

__all__ = ["SqliteFile", "Synchronous"]


class SqliteFile:
    """One namespace of one file; its stores share this process's connections."""

    def __init__(
        self,
        path: Path,
        namespace: str,
        clock: Clock,
        synchronous: Synchronous = "full",
        write_deadline: float = WRITE_DEADLINE,
    ) -> None:
        self.database = Database(path, clock, synchronous, write_deadline)
        self._namespace = namespace

    def broker(self, retention: Retention) -> SqliteBroker:
        return SqliteBroker(self.database, self._namespace, retention)

    def results(self, ttl: float) -> SqliteResults:
        return SqliteResults(self.database, self._namespace, ttl)

    def revocations(self) -> SqliteRevocations:
        return SqliteRevocations(self.database, self._namespace)

    def pauses(self) -> SqlitePauses:
        return SqlitePauses(self.database, self._namespace)

    def locks(self) -> SqliteLocks:
        return SqliteLocks(self.database, self._namespace)

    def rate_limits(self) -> SqliteRateLimits:
        return SqliteRateLimits(self.database, self._namespace)

    def heartbeats(self) -> SqliteHeartbeats:
        return SqliteHeartbeats(self.database, self._namespace)

    def control(self) -> SqliteControl:
        return SqliteControl(self.database, self._namespace)
