"""The last snapshot of each worker, in memory: packed, so that it is nobody else's."""

from __future__ import annotations

import marshal
from collections.abc import Mapping
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
            self._space.heartbeats = live | {worker_id: (marshal.dumps(dict(snapshot)), now + ttl)}

    def list_heartbeats(self) -> list[dict[str, Any]]:
        with self._space.changed:
            now = self._space.clock.now()
            live = [packed for _, (packed, expires_at) in sorted(self._space.heartbeats.items()) if expires_at > now]
            return [marshal.loads(packed) for packed in live]

    def close(self) -> None:
        """Nothing to close."""
