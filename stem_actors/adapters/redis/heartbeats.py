"""The last snapshot of each worker, in Redis: a hash, each value led by when it expires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys

__all__ = ["RedisHeartbeats"]


class RedisHeartbeats:
    """A `HeartbeatStore`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._key = Keys(namespace).heartbeats
        self._is_closed = False

    def put_heartbeat(self, worker_id: str, snapshot: Mapping[str, Any], ttl: float) -> None:
        stamp = f"{round((self._server.now() + ttl) * 1000):013}".encode()
        self._server.run(Script.named("beat"), [self._key], [worker_id, stamp + msgpack.packb(dict(snapshot))])

    def list_heartbeats(self) -> list[dict[str, Any]]:
        flat = self._server.command("HGETALL", self._key)
        now = self._server.now()
        live, dead = [], []
        for worker_id, value in sorted(zip(flat[::2], flat[1::2], strict=True)):
            snapshot = _snapshot(value, now)
            if snapshot is None:
                dead.append(worker_id)
            else:
                live.append(snapshot)
        if dead:
            self._server.command("HDEL", self._key, *dead)
        return live

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()


def _snapshot(value: bytes, now: float) -> dict[str, Any] | None:
    """None once it has expired, or when it is none of ours."""
    try:
        snapshot = msgpack.unpackb(value[13:], strict_map_key=False) if int(value[:13]) / 1000 > now else None
    except (ValueError, TypeError):
        return None
    return snapshot if isinstance(snapshot, dict) else None
