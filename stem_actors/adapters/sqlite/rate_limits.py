"""Rate limits in SQLite: a row for each bucket that is not full. The places of concurrency limits are `semaphores.py`."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.sqlite import semaphores
from stem_actors.adapters.sqlite.connection import Database
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.concurrency import Place, Semaphore, grant
from stem_actors.model.rate import Bucket, Limit

__all__ = ["SqliteRateLimits"]

# Made at first use and no part of the schema's version: an older Stem that knows no limits may go on using the file.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rate (namespace INTEGER NOT NULL, key TEXT NOT NULL, full_at REAL NOT NULL, "
    "line_ends REAL NOT NULL, ends_at REAL NOT NULL, PRIMARY KEY (namespace, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS rate_by_end ON rate (namespace, ends_at)",
)


class SqliteRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace = namespace
        self._is_closed = False

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        namespace = self._database.namespace_id(self._namespace)
        keys = {each.key for all_of_one in asked for each in all_of_one if isinstance(each, Limit)}
        place_keys = {each.key for all_of_one in asked for each in all_of_one if isinstance(each, Place)}
        with self._database.write(durable=False) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            now = self._database.clock.now()
            rows = connection.execute(
                f"SELECT key, full_at, line_ends FROM rate WHERE namespace = ? AND key IN {MANY}", (namespace, as_set(keys))
            )
            buckets = {key: Bucket(full_at, line_ends) for key, full_at, line_ends in rows}
            before = semaphores.load(connection, namespace, place_keys, now) if place_keys else {}
            after = dict(before)
            answers = grant(asked, buckets, after, now)
            if place_keys:
                semaphores.store(connection, namespace, before, after, now)
            connection.executemany(
                "INSERT OR REPLACE INTO rate (namespace, key, full_at, line_ends, ends_at) VALUES (?, ?, ?, ?, ?)",
                [(namespace, key, *bucket, bucket.ends_at) for key, bucket in buckets.items()],
            )
            connection.execute("DELETE FROM rate WHERE namespace = ? AND ends_at <= ?", (namespace, now))
        return answers

    def renew(self, places: Sequence[Place]) -> list[bool]:
        namespace = self._database.namespace_id(self._namespace)
        answers = []
        with self._database.write(durable=False) as connection:
            now = self._database.clock.now()
            before = semaphores.load(connection, namespace, {place.key for place in places}, now)
            after = dict(before)
            for place in places:
                renewed = after.get(place.key, Semaphore()).renewed(place, now)
                if renewed is not None:
                    after[place.key] = renewed
                answers.append(renewed is not None)
            semaphores.store(connection, namespace, before, after, now)
        return answers

    def release(self, places: Sequence[Place]) -> None:
        namespace = self._database.namespace_id(self._namespace)
        with self._database.write(durable=False) as connection:
            semaphores.load(connection, namespace, (), self._database.clock.now())
            semaphores.free(connection, namespace, [(place.key, place.holder) for place in places])

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
