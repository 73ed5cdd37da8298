"""Revocations in SQLite. The version is a number that the file never gives out twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stem_actors.adapters.sqlite.connection import Database
from stem_actors.ports import Revocation

__all__ = ["SqliteRevocations"]


class SqliteRevocations:
    """A `RevokeStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        namespace = self._database.namespace_id(self._namespace)
        stored = {}
        with self._database.write() as connection:
            for each in revocations:
                connection.execute("DELETE FROM revocation WHERE namespace = ? AND task_id = ?", (namespace, each.task_id))
                version = connection.execute(
                    "INSERT INTO revocation (namespace, task_id, terminate, reason, requested_by, issued_at, expires_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (namespace, each.task_id, each.terminate, each.reason, each.requested_by, each.issued_at, each.expires_at),
                ).lastrowid
                stored[each.task_id] = replace(each, version=version or 0)
        return [stored[each.task_id] for each in revocations]

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        rows = self._database.read(
            "SELECT task_id, terminate, reason, requested_by, issued_at, expires_at, version FROM revocation "
            "WHERE namespace = ? AND version > ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY version LIMIT ?",
            (self._database.namespace_id(self._namespace), version, self._database.clock.now(), max(0, limit)),
        )
        return [Revocation(task_id, bool(terminate), *rest) for task_id, terminate, *rest in rows]

    def prune_expired(self) -> int:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write(durable=False) as connection:
            return connection.execute(
                "DELETE FROM revocation WHERE namespace = ? AND expires_at <= ?", (namespace, self._database.clock.now())
            ).rowcount

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
