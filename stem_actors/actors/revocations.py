"""The revocations in force, by task: kept until they expire, however often one is applied.

Plain bookkeeping for the pool, which is its only user.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from stem_actors.ports import Revocation

__all__ = ["InForce"]


class InForce:
    """Which tasks are revoked. `now` is the server's clock, by which revocations expire."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_task: dict[str, Revocation] = {}
        self._ends: list[tuple[float, int, str]] = []
        """When which version of which expires, as a heap: there may be many, and of those few expire at a time."""

    def __len__(self) -> int:
        return len(self._by_task)

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Take note of these; of two for one task the newer one stands."""
        for each in revocations:
            known = self._by_task.get(each.task_id)
            if known is None or known.version < each.version:
                self._by_task[each.task_id] = each
                if each.expires_at is not None:
                    heapq.heappush(self._ends, (each.expires_at, each.version, each.task_id))

    def find(self, task_id: str) -> Revocation | None:
        """The one that holds for this task now."""
        found = self._by_task.get(task_id)
        return None if found is None or (found.expires_at is not None and found.expires_at <= self._now()) else found

    def prune(self) -> None:
        """Forget those that have expired."""
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            _, version, task_id = heapq.heappop(self._ends)
            known = self._by_task.get(task_id)
            if known is not None and known.version == version:
                del self._by_task[task_id]
