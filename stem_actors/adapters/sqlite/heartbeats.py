"""The last snapshot of each worker, in SQLite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from stem_actors.adapters.sqlite.connection import Database

__all__ = ["SqliteHeartbeats"]


class SqliteHeartbeats:
    """A `HeartbeatStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def put_heartbeat(self, worker_id: str, snapshot: Mapping[str, Any], ttl: float) -> None:
        packed = msgpack.packb(dict(snapshot))
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write(durable=False) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO heartbeat (namespace, worker, expires_at, snapshot) VALUES (?, ?, ?, ?)",
                (namespace, worker_id, self._database.clock.now() + ttl, packed),
            )

    def list_heartbeats(self) -> list[dict[str, Any]]:
        rows = self._database.read(
            "SELECT snapshot FROM heartbeat WHERE namespace = ? AND expires_at > ? ORDER BY worker",
            (self._database.namespace_id(self._namespace), self._database.clock.now()),
        )
        return [msgpack.unpackb(snapshot, strict_map_key=False) for (snapshot,) in rows]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
