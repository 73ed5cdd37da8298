"""Ends, restarts and freezes the broker, and lets a replica take over from it. Private ones alone: a named one is not ours."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.servers import PrivatePostgres, PrivateRedis, PrivateSqlite, RedisPair

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["BrokerOutage", "FailOver", "FreezeBroker", "LockDatabase", "kill_broker", "restart_broker"]

_Server = PrivateRedis | PrivatePostgres
_EVERYTHING = {"everything": True}


@dataclass(frozen=True, slots=True)
class BrokerOutage:
    """The server ends, and stays away until it is healed; `does` says how it ends."""

    name: str
    does: str
    end: Callable[[_Server], None]
    lasts: float
    scope: str = "broker"

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        server = _server(cluster, self.name)
        injection = _injection(server)  # names its process, which will be gone
        self.end(server)
        return injection

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _server(cluster, self.name).start()


def kill_broker() -> BrokerOutage:
    does = "SIGKILL; it stays away until it is healed, and has then everything it had acknowledged."
    return BrokerOutage("kill-broker", does, lambda server: server.kill(), 1.0)


def restart_broker() -> BrokerOutage:
    return BrokerOutage("restart-broker", "An orderly end, and a start.", lambda server: server.stop(), 0.5)


@dataclass(frozen=True, slots=True)
class FreezeBroker:
    """The server stops by SIGSTOP: connections stay, nothing is answered. SQLite has none, but a file that can be locked."""

    name: str = "freeze-broker"
    scope: str = "broker"
    lasts: float = 2.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        if isinstance(cluster.server, PrivateSqlite):
            return _lock(cluster, cluster.server)
        server = _server(cluster, self.name)
        server.freeze()
        return _injection(server)

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        if isinstance(cluster.server, PrivateSqlite):
            _unlock(cluster, injection)
        else:
            _server(cluster, self.name).thaw()


@dataclass(frozen=True, slots=True)
class LockDatabase:
    """Another process stands still inside a write transaction on the SQLite file."""

    name: str = "lock-database"
    scope: str = "broker"
    lasts: float = 2.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        if not isinstance(cluster.server, PrivateSqlite):
            raise CannotInject(f"{self.name} needs a private SQLite database")
        return _lock(cluster, cluster.server)

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _unlock(cluster, injection)


@dataclass(frozen=True, slots=True)
class FailOver:
    """The replica hears nothing new for as long as this lasts, and then takes over. What was acknowledged meanwhile is lost with
    the old primary, unless the client waited for a replica."""

    name: str = "fail-over"
    scope: str = "broker"
    lasts: float = 2.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        pair = _pair(cluster, self.name)
        pair.hold_replication()
        return Injection(f"primary at port {pair.primary.port}", {**_EVERYTHING, "forgets": True})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        pair = _pair(cluster, self.name)
        pair.fail_over()
        for link in cluster.links:
            link.retarget(pair.address)
        pair.rejoin()


def _server(cluster: Cluster, name: str) -> _Server:
    match cluster.server:
        case PrivateRedis() | PrivatePostgres():
            return cluster.server
        case RedisPair():
            return cluster.server.primary
        case _:
            raise CannotInject(f"{name} needs a private server: run with --broker redis or --broker postgres")


def _pair(cluster: Cluster, name: str) -> RedisPair:
    if not isinstance(cluster.server, RedisPair):
        raise CannotInject(f"{name} needs a private Redis with a replica, as the suite redis-failover has")
    return cluster.server


def _injection(server: _Server) -> Injection:
    return Injection(f"{server.program} {server.pid}", _EVERYTHING)


_HOLD_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
deadline = time.monotonic() + 5
while True:
    try:
        connection.execute("BEGIN EXCLUSIVE")
        break
    except sqlite3.OperationalError:
        if time.monotonic() > deadline:
            sys.exit(1)
        time.sleep(0.0002)
print("locked", flush=True)
sys.stdin.read()
"""


def _lock(cluster: Cluster, server: PrivateSqlite) -> Injection | None:
    holder = cluster.accompany(_HOLD_LOCK, str(server.path))
    if holder is None:  # busy writers were quicker, again and again
        return None
    return Injection(str(server.path), {**_EVERYTHING, "holder": holder})


def _unlock(cluster: Cluster, injection: Injection) -> None:
    cluster.dismiss(injection.detail["holder"])
