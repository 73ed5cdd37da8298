"""The last snapshot of each worker, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from stem_actors.adapters.memory.space import Space

__all__ = ["MemoryHeartbeats"]


class MemoryHeartbeats:
    """A `HeartbeatStore`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def put_heartbeat(self, worker_id: str, snapshot: Mapping[str, Any], ttl: float) -> None:
        with self._space.changed:
            now = self._space.clock.now()
            live = {worker: entry for worker, entry in self._space.heartbeats.items() if entry[1] > now}
            self._space.heartbeats = live | {worker_id: (deepcopy(dict(snapshot)), now + ttl)}

    def list_heartbeats(self) -> list[dict[str, Any]]:
        with self._space.changed:
            now = self._space.clock.now()
            return [
                deepcopy(snapshot) for _, (snapshot, expires_at) in sorted(self._space.heartbeats.items()) if expires_at > now
            ]

    def close(self) -> None:
        """Nothing to close."""
