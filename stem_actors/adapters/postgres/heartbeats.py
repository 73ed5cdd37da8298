"""The last snapshot of each worker, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from stem_actors.adapters.postgres.connection import Database

__all__ = ["PostgresHeartbeats"]

_PUT = """
    WITH put AS (
        INSERT INTO @heartbeat (namespace, worker, expires_at, snapshot)
        VALUES (%(namespace)s, %(worker)s, @now + %(ttl)s::float8, %(snapshot)s::bytea)
        ON CONFLICT (namespace, worker) DO UPDATE SET expires_at = excluded.expires_at, snapshot = excluded.snapshot
    )
    SELECT @lazily
"""
_LIST = "SELECT snapshot FROM @heartbeat WHERE namespace = %(namespace)s AND expires_at > @now ORDER BY worker"


class PostgresHeartbeats:
    """A `HeartbeatStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def put_heartbeat(self, worker_id: str, snapshot: Mapping[str, Any], ttl: float) -> None:
        namespace = self._database.namespace_id(self._namespace)
        packed = msgpack.packb(dict(snapshot))
        self._database.run(_PUT, {"namespace": namespace, "worker": worker_id, "ttl": ttl, "snapshot": packed})

    def list_heartbeats(self) -> list[dict[str, Any]]:
        rows = self._database.read(_LIST, {"namespace": self._database.namespace_id(self._namespace)})
        return [msgpack.unpackb(snapshot, strict_map_key=False) for (snapshot,) in rows]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
