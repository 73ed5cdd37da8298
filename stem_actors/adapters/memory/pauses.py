"""Paused queues in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stem_actors.adapters.memory.space import Space
from stem_actors.ports import Pause

__all__ = ["MemoryPauses"]


class MemoryPauses:
    """A `PauseStore`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def pause(self, queues: Sequence[str], reason: str | None = None, requested_by: str | None = None) -> None:
        with self._space.changed:
            now, pauses = self._space.clock.now(), self._space.pauses
            for queue in queues:
                new = Pause(queue, reason, requested_by, now)
                pauses[queue] = replace(new, paused_at=pauses.get(queue, new).paused_at)

    def resume(self, queues: Sequence[str]) -> None:
        with self._space.changed:
            for queue in queues:
                self._space.pauses.pop(queue, None)

    def paused(self) -> list[Pause]:
        with self._space.changed:
            return [self._space.pauses[queue] for queue in sorted(self._space.pauses)]

    def close(self) -> None:
        """Nothing to close."""
