"""Locks in SQLite. The fence is the row's number, which the file never gives out twice, so it grows over all keys."""

from __future__ import annotations

from stem_actors.adapters.sqlite.connection import Database
from stem_actors.ports import Lock

__all__ = ["SqliteLocks"]


class SqliteLocks:
    """A `LockStore`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def acquire(self, key: str, owner: str, ttl: float = 30.0) -> Lock | None:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write() as connection:
            now = self._database.clock.now()
            row = connection.execute(
                "SELECT owner, fence FROM lock WHERE namespace = ? AND key = ? AND expires_at > ?", (namespace, key, now)
            ).fetchone()
            if row is None:
                connection.execute("DELETE FROM lock WHERE namespace = ? AND key = ?", (namespace, key))
                fence = connection.execute(
                    "INSERT INTO lock (namespace, key, owner, expires_at) VALUES (?, ?, ?, ?)", (namespace, key, owner, now + ttl)
                ).lastrowid
                return Lock(key, owner, fence or 0)
            if row[0] != owner:
                return None
            connection.execute("UPDATE lock SET expires_at = ? WHERE fence = ?", (now + ttl, row[1]))
            return Lock(key, owner, row[1])

    def renew(self, lock: Lock, ttl: float = 30.0) -> bool:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write() as connection:
            now = self._database.clock.now()
            count = connection.execute(
                "UPDATE lock SET expires_at = ? WHERE fence = ? AND namespace = ? AND key = ? AND owner = ? AND expires_at > ?",
                (now + ttl, lock.fence, namespace, lock.key, lock.owner, now),
            ).rowcount
        return bool(count)

    def owner_of(self, key: str) -> str | None:
        rows = self._database.read(
            "SELECT owner FROM lock WHERE namespace = ? AND key = ? AND expires_at > ?",
            (self._database.namespace_id(self._namespace), key, self._database.clock.now()),
        )
        return str(rows[0][0]) if rows else None

    def release(self, lock: Lock) -> bool:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write() as connection:
            count = connection.execute(
                "DELETE FROM lock WHERE fence = ? AND namespace = ? AND key = ? AND owner = ? AND expires_at > ?",
                (lock.fence, namespace, lock.key, lock.owner, self._database.clock.now()),
            ).rowcount
        return bool(count)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
