"""Brokers of a run's own. Faults may do with them what they like; a broker that somebody named by its URL is never touched."""

from __future__ import annotations

from stem_chaos.servers.postgres import PrivatePostgres
from stem_chaos.servers.redis import PrivateRedis, RedisPair
from stem_chaos.servers.sqlite import PrivateSqlite

__all__ = ["PrivatePostgres", "PrivateRedis", "PrivateServer", "PrivateSqlite", "RedisPair"]

PrivateServer = PrivateSqlite | PrivateRedis | RedisPair | PrivatePostgres
