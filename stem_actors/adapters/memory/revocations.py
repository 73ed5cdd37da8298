"""Revocations in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stem_actors.adapters.memory.space import Space
from stem_actors.ports import Revocation

__all__ = ["MemoryRevocations"]


class MemoryRevocations:
    """A `RevokeStore`. Any thread."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        with self._space.changed:
            for each in revocations:
                self._space.revocations[each.task_id] = replace(each, version=self._space.next_number())
            return [self._space.revocations[each.task_id] for each in revocations]

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        with self._space.changed:
            now = self._space.clock.now()
            later = [each for each in self._space.revocations.values() if each.version > version and not _has_expired(each, now)]
        return sorted(later, key=lambda each: each.version)[: max(0, limit)]

    def prune_expired(self) -> int:
        with self._space.changed:
            now = self._space.clock.now()
            expired = [each.task_id for each in self._space.revocations.values() if _has_expired(each, now)]
            for task_id in expired:
                del self._space.revocations[task_id]
        return len(expired)

    def close(self) -> None:
        """Nothing to close."""


def _has_expired(revocation: Revocation, now: float) -> bool:
    return revocation.expires_at is not None and revocation.expires_at <= now
