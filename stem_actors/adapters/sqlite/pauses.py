"""Paused queues in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.sqlite.connection import Database
from stem_actors.ports import Pause

__all__ = ["SqlitePauses"]

_PAUSE = """
    INSERT INTO pause (namespace, queue, reason, requested_by, paused_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET reason = excluded.reason, requested_by = excluded.requested_by
"""


class SqlitePauses:
    """A `PauseStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def pause(self, queues: Sequence[str], reason: str | None = None, requested_by: str | None = None) -> None:
        namespace, now = self._database.namespace_id(self._namespace), self._database.clock.now()
        with self._database.write() as connection:
            connection.executemany(_PAUSE, [(namespace, queue, reason, requested_by, now) for queue in queues])

    def resume(self, queues: Sequence[str]) -> None:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write() as connection:
            connection.executemany(
                "DELETE FROM pause WHERE namespace = ? AND queue = ?", [(namespace, queue) for queue in queues]
            )

    def paused(self) -> list[Pause]:
        rows = self._database.read(
            "SELECT queue, reason, requested_by, paused_at FROM pause WHERE namespace = ? ORDER BY queue",
            (self._database.namespace_id(self._namespace),),
        )
        return [Pause(*row) for row in rows]

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
