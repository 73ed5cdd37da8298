"""The control bus in memory. A cursor is the number of the last message seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_actors.adapters.memory.space import Space

__all__ = ["MemoryControl"]


class MemoryControl:
    """A `ControlBus`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        with self._space.changed:
            now = self._space.clock.now()
            self._space.control = [each for each in self._space.control if each[3] > now]
            self._space.control.append((self._space.next_number(), channel, message, now + ttl))
            self._space.changed.notify_all()

    def cursor(self, channels: Sequence[str]) -> Any:
        with self._space.changed:
            return self._space.last_number

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        with self._space.changed:
            found = self._space.wait_for(lambda: self._later(channels, cursor)[: max(0, limit)], wait)
        return [message for _, message in found], found[-1][0] if found else cursor

    def _later(self, channels: Sequence[str], cursor: int) -> list[tuple[int, bytes]]:
        now = self._space.clock.now()
        return [
            (number, message)
            for number, channel, message, expires_at in self._space.control
            if number > cursor and channel in channels and expires_at > now
        ]

    def close(self) -> None:
        """Nothing to close."""
