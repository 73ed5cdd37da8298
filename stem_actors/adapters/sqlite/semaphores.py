"""The places of concurrency limits in SQLite: a row for each that is held, and one for each line of those that wait.

Every function works inside its caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping

from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.concurrency import Semaphore

__all__ = ["free", "load", "store"]

# Made at first use, as the table of rate limits.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS place (namespace INTEGER NOT NULL, key TEXT NOT NULL, holder TEXT NOT NULL, "
    "ends_at REAL NOT NULL, PRIMARY KEY (namespace, key, holder)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS place_by_end ON place (namespace, ends_at)",
    "CREATE TABLE IF NOT EXISTS place_line (namespace INTEGER NOT NULL, key TEXT NOT NULL, line_ends REAL NOT NULL, "
    "next_task TEXT NOT NULL, next_since REAL NOT NULL, next_until REAL NOT NULL, PRIMARY KEY (namespace, key)) WITHOUT ROWID",
)


def load(connection: sqlite3.Connection, namespace: int, keys: Iterable[str], now: float) -> dict[str, Semaphore]:
    """The semaphores of these keys, those that are idle too; what has lapsed is gone."""
    names = as_set(keys)
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("DELETE FROM place WHERE namespace = ? AND ends_at <= ?", (namespace, now))
    ends: dict[str, dict[str, float]] = defaultdict(dict)
    rows = connection.execute(f"SELECT key, holder, ends_at FROM place WHERE namespace = ? AND key IN {MANY}", (namespace, names))
    for key, holder, ends_at in rows:
        ends[key][holder] = ends_at
    lines = connection.execute(
        "SELECT key, line_ends, next_task, next_since, next_until FROM place_line "
        f"WHERE namespace = ? AND key IN {MANY} AND max(line_ends, next_until) > ?",
        (namespace, names, now),
    )
    found = {key: Semaphore(ends.pop(key, {}), *line) for key, *line in lines}
    return found | {key: Semaphore(held) for key, held in ends.items()}


def store(
    connection: sqlite3.Connection, namespace: int, before: Mapping[str, Semaphore], after: Mapping[str, Semaphore], now: float
) -> None:
    """Write down what has changed since `load`."""
    for key, semaphore in after.items():
        old = before.get(key, Semaphore())
        taken = [(namespace, key, *each) for each in semaphore.ends.items() if old.ends.get(each[0]) != each[1]]
        connection.executemany("INSERT OR REPLACE INTO place (namespace, key, holder, ends_at) VALUES (?, ?, ?, ?)", taken)
        if semaphore[1:] != old[1:]:
            connection.execute("INSERT OR REPLACE INTO place_line VALUES (?, ?, ?, ?, ?, ?)", (namespace, key, *semaphore[1:]))
    connection.execute("DELETE FROM place_line WHERE namespace = ? AND max(line_ends, next_until) <= ?", (namespace, now))


def free(connection: sqlite3.Connection, namespace: int, places: Iterable[tuple[str, str]]) -> None:
    """These places (key, holder) are nobody's any more."""
    connection.executemany(
        "DELETE FROM place WHERE (namespace, key, holder) = (?, ?, ?)", [(namespace, key, holder) for key, holder in places]
    )
