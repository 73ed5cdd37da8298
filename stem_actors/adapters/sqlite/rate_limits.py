"""Rate limits in SQLite: a row for each bucket that is not full."""

from __future__ import annotations

from collections.abc import Sequence

from stem_actors.adapters.sqlite.connection import Database
from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.rate import Bucket, Limit, ask

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

    def acquire(self, asked: Sequence[Sequence[Limit]]) -> list[float | None]:
        namespace = self._database.namespace_id(self._namespace)
        keys = {key for limits in asked for key, _ in limits}
        with self._database.write(durable=False) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            now = self._database.clock.now()
            rows = connection.execute(
                f"SELECT key, full_at, line_ends FROM rate WHERE namespace = ? AND key IN {MANY}", (namespace, as_set(keys))
            )
            buckets = {key: Bucket(full_at, line_ends) for key, full_at, line_ends in rows}
            answers = []
            for limits in asked:
                after, wait = ask([buckets.get(key, Bucket()) for key, _ in limits], [rate for _, rate in limits], now)
                buckets.update(zip((key for key, _ in limits), after, strict=True))
                answers.append(wait)
            connection.executemany(
                "INSERT OR REPLACE INTO rate (namespace, key, full_at, line_ends, ends_at) VALUES (?, ?, ?, ?, ?)",
                [(namespace, key, *bucket, bucket.ends_at) for key, bucket in buckets.items()],
            )
            connection.execute("DELETE FROM rate WHERE namespace = ? AND ends_at <= ?", (namespace, now))
        return answers

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()
