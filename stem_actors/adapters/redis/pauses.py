"""Paused queues in Redis: one hash by queue."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from stem_actors.adapters.redis.connection import Script, Server
from stem_actors.adapters.redis.keys import Keys
from stem_actors.ports import Pause

__all__ = ["RedisPauses"]


class RedisPauses:
    """A `PauseStore`. Any thread."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server.attach()
        self._key = Keys(namespace).pauses
        self._is_closed = False

    def pause(self, queues: Sequence[str], reason: str | None = None, requested_by: str | None = None) -> None:
        if queues:
            self._server.run(
                Script.named("pause"), [self._key], [self._server.given, msgpack.packb((reason, requested_by)), *queues]
            )

    def resume(self, queues: Sequence[str]) -> None:
        if queues:
            self._server.command("HDEL", self._key, *queues)

    def paused(self) -> list[Pause]:
        flat = self._server.command("HGETALL", self._key)
        pauses = (_pause(queue, value) for queue, value in zip(flat[::2], flat[1::2], strict=True))
        return sorted((each for each in pauses if each is not None), key=lambda each: each.queue)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._server.detach()


def _pause(queue: bytes, value: bytes) -> Pause | None:
    """None for what is none of ours."""
    try:
        reason, requested_by = msgpack.unpackb(value[16:])
        return Pause(queue.decode(), reason, requested_by, int(value[:16]) / 1000)
    except (ValueError, TypeError):
        return None
