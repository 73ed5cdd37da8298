"""Paused queues in Postgres."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.postgres.arrays import Texts
from stem_actors.adapters.postgres.connection import Database
from stem_actors.ports import Pause

__all__ = ["PostgresPauses"]

_PAUSE = """
    INSERT INTO @pause (namespace, queue, reason, requested_by, paused_at)
    SELECT %(namespace)s::int, queue, %(reason)s::text, %(requested_by)s::text, @now
    FROM unnest(%(queues)s::text[]) AS queue
    ON CONFLICT (namespace, queue) DO UPDATE SET reason = excluded.reason, requested_by = excluded.requested_by
"""
_RESUME = "DELETE FROM @pause WHERE namespace = %(namespace)s AND queue = ANY (%(queues)s::text[])"
_PAUSED = "SELECT queue, reason, requested_by, paused_at FROM @pause WHERE namespace = %(namespace)s ORDER BY queue"


class PostgresPauses:
    """A `PauseStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._is_closed = False

    def pause(self, queues: Sequence[str], reason: str | None = None, requested_by: str | None = None) -> None:
        why = {"reason": reason, "requested_by": requested_by}
        self._database.run(_PAUSE, {"namespace": self._namespace, "queues": Texts(sorted(set(queues))), **why})

    def resume(self, queues: Sequence[str]) -> None:
        self._database.run(_RESUME, {"namespace": self._namespace, "queues": Texts(list(queues))})

    def paused(self) -> list[Pause]:
        return [Pause(*row) for row in self._database.read(_PAUSED, {"namespace": self._namespace})]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)
