"""Redis 7.0 or newer: several hosts, one server. The production default."""

from __future__ import annotations

import time

from stem_actors.adapters.redis.broker import RedisBroker
from stem_actors.adapters.redis.connection import Server
from stem_actors.adapters.redis.control import RedisControl
from stem_actors.adapters.redis.endpoint import Endpoint
from stem_actors.adapters.redis.heartbeats import RedisHeartbeats
from stem_actors.adapters.redis.locks import RedisLocks
from stem_actors.adapters.redis.pauses import RedisPauses
from stem_actors.adapters.redis.rate_limits import RedisRateLimits
from stem_actors.adapters.redis.results import RedisResults
from stem_actors.adapters.redis.revocations import RedisRevocations
from stem_actors.adapters.redis.server import ServerReport, examine
from stem_actors.clock import Clock
from stem_actors.model.lapse import Retention

__all__ = ["Endpoint", "RedisSpace", "ServerReport", "look_at"]


class RedisSpace:
    """One namespace of one server; its stores share this process's connections."""

    def __init__(self, endpoint: Endpoint, namespace: str, clock: Clock) -> None:
        self.server = Server(endpoint, clock)
        self._namespace = namespace

    def broker(self, retention: Retention) -> RedisBroker:
        return RedisBroker(self.server, self._namespace, retention)

    def results(self, ttl: float) -> RedisResults:
        return RedisResults(self.server, self._namespace, ttl)

    def revocations(self) -> RedisRevocations:
        return RedisRevocations(self.server, self._namespace)

    def pauses(self) -> RedisPauses:
        return RedisPauses(self.server, self._namespace)

    def locks(self) -> RedisLocks:
        return RedisLocks(self.server, self._namespace)

    def rate_limits(self) -> RedisRateLimits:
        return RedisRateLimits(self.server, self._namespace)

    def heartbeats(self) -> RedisHeartbeats:
        return RedisHeartbeats(self.server, self._namespace)

    def control(self) -> RedisControl:
        return RedisControl(self.server, self._namespace)


def look_at(endpoint: Endpoint, timeout: float) -> ServerReport | None:
    """What the server is that a health check asks about; None when it does not say. `timeout` is for each step."""
    from redis.exceptions import RedisError

    connection = endpoint.connection("stem-health", timeout, timeout)
    try:
        connection.connect()
        return examine(connection, time.time())
    except RedisError:
        return None
    finally:
        connection.disconnect()
