"""Revocations in Postgres. Who stores some takes a turn, so that versions grow as they appear and a reader misses none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stem_actors.adapters.postgres.connection import Database, Transaction
from stem_actors.adapters.postgres.schema import LOCK
from stem_actors.ports import Revocation

__all__ = ["PostgresRevocations"]

_TURN = f"SELECT pg_advisory_xact_lock({LOCK + 2}, %(namespace)s::int)"
_STORE = """
    INSERT INTO @revocation AS standing (namespace, task_id, terminate, reason, requested_by, issued_at, expires_at, version)
    VALUES (
        %(namespace)s, %(task_id)s, %(terminate)s, %(reason)s, %(requested_by)s, %(issued_at)s::float8, %(expires_at)s::float8,
        nextval('@version')
    )
    ON CONFLICT (namespace, task_id) DO UPDATE SET
        terminate = excluded.terminate, reason = excluded.reason, requested_by = excluded.requested_by,
        issued_at = excluded.issued_at, expires_at = excluded.expires_at, version = excluded.version
    RETURNING version
"""
_LIST = """
    SELECT task_id, terminate, reason, requested_by, issued_at, expires_at, version FROM @revocation
    WHERE namespace = %(namespace)s AND version > %(version)s AND (expires_at IS NULL OR expires_at > @now)
    ORDER BY version LIMIT %(limit)s
"""
_PRUNE = "DELETE FROM @revocation WHERE namespace = %(namespace)s AND expires_at <= @now RETURNING 1"


class PostgresRevocations:
    """A `RevokeStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._is_closed = False

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        here = {"namespace": self._namespace}

        def store_all(transaction: Transaction) -> dict[str, Revocation]:
            transaction.run(_TURN, here)
            stored = {}
            for each in revocations:
                ((version,),) = transaction.run(
                    _STORE,
                    {
                        **here,
                        "task_id": each.task_id,
                        "terminate": each.terminate,
                        "reason": each.reason,
                        "requested_by": each.requested_by,
                        "issued_at": each.issued_at,
                        "expires_at": each.expires_at,
                    },
                )
                stored[each.task_id] = replace(each, version=version)
            return stored

        stored = self._database.transact(store_all)
        return [stored[each.task_id] for each in revocations]

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        rows = self._database.read(_LIST, {"namespace": self._namespace, "version": version, "limit": max(0, limit)})
        return [Revocation(*row) for row in rows]

    def prune_expired(self) -> int:
        return len(self._database.run(_PRUNE, {"namespace": self._namespace}))

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)
