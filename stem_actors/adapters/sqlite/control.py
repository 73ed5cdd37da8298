"""The control bus in SQLite. A cursor is the number of the last message seen; numbers are never given out twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stem_actors.adapters.sqlite.connection import Database, Row
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.adapters.sqlite.wakeup import topic

__all__ = ["SqliteControl"]


class SqliteControl:
    """A `ControlBus`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._topic = topic("control", namespace)
        self._is_closed = False

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write(durable=False) as connection:
            connection.execute(
                "INSERT INTO control (namespace, channel, expires_at, message) VALUES (?, ?, ?, ?)",
                (namespace, channel, self._database.clock.now() + ttl, message),
            )
        self._database.wakeup.notify(self._topic)

    def cursor(self, channels: Sequence[str]) -> Any:
        rows = self._database.read("SELECT seq FROM sqlite_sequence WHERE name = 'control'")
        return rows[0][0] if rows else 0

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        rows = self._messages(channels, cursor, limit)
        if not rows and wait > 0:
            rows = self._await(channels, cursor, limit, wait)
        return [message for _, message in rows], rows[-1][0] if rows else cursor

    def _await(self, channels: Sequence[str], cursor: Any, limit: int, wait: float) -> list[Row]:
        clock = self._database.clock
        deadline = clock.monotonic() + wait
        is_over = False
        with self._database.wakeup.listening(self._topic) as inbox:
            while True:
                inbox.drain()
                rows = self._messages(channels, cursor, limit)
                if rows or is_over:
                    return rows
                is_over = not inbox.wait(deadline - clock.monotonic())

    def _messages(self, channels: Sequence[str], cursor: Any, limit: int) -> list[Row]:
        return self._database.read(
            f"SELECT number, message FROM control WHERE namespace = ? AND channel IN {MANY} "
            "AND number > ? AND expires_at > ? ORDER BY number LIMIT ?",
            (self._database.namespace_id(self._namespace), as_set(channels), cursor, self._database.clock.now(), max(0, limit)),
        )

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
