"""Locks in Postgres. The fence is a number that the schema never gives out twice, so it grows over all keys."""

from __future__ import annotations

from stem_actors.adapters.postgres.connection import Database
from stem_actors.ports import Lock

__all__ = ["PostgresLocks"]

_ACQUIRE = """
    INSERT INTO @lock AS standing (namespace, key, owner, expires_at, fence)
    VALUES (%(namespace)s, %(key)s, %(owner)s, @now + %(ttl)s::float8, nextval('@fence'))
    ON CONFLICT (namespace, key) DO UPDATE SET
        owner = excluded.owner, expires_at = excluded.expires_at,
        fence = CASE WHEN standing.expires_at > @now THEN standing.fence ELSE excluded.fence END
    WHERE standing.expires_at <= @now OR standing.owner = excluded.owner
    RETURNING fence
"""
_HELD = "namespace = %(namespace)s AND key = %(key)s AND owner = %(owner)s AND fence = %(fence)s AND expires_at > @now"
_RENEW = f"UPDATE @lock SET expires_at = @now + %(ttl)s::float8 WHERE {_HELD} RETURNING 1"
_RELEASE = f"DELETE FROM @lock WHERE {_HELD} RETURNING 1"
_OWNER = "SELECT owner FROM @lock WHERE namespace = %(namespace)s AND key = %(key)s AND expires_at > @now"


class PostgresLocks:
    """A `LockStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def acquire(self, key: str, owner: str, ttl: float = 30.0) -> Lock | None:
        rows = self._database.run(_ACQUIRE, {**self._place(key), "owner": owner, "ttl": ttl})
        return Lock(key, owner, rows[0][0]) if rows else None

    def renew(self, lock: Lock, ttl: float = 30.0) -> bool:
        return bool(self._database.run(_RENEW, {**self._held(lock), "ttl": ttl}))

    def owner_of(self, key: str) -> str | None:
        rows = self._database.read(_OWNER, self._place(key))
        return str(rows[0][0]) if rows else None

    def release(self, lock: Lock) -> bool:
        return bool(self._database.run(_RELEASE, self._held(lock)))

    def _place(self, key: str) -> dict[str, object]:
        return {"namespace": self._database.namespace_id(self._namespace), "key": key}

    def _held(self, lock: Lock) -> dict[str, object]:
        return {**self._place(lock.key), "owner": lock.owner, "fence": lock.fence}

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
