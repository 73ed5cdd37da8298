"""Claims of unique tasks in SQLite: a row for each key that is held. Every function works inside its caller's transaction.

A message that holds a key until its end says so by a bit beside its id's (`is_named`), which travels with it anyway; so a message
that holds none is never asked about one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgpack

from stem_actors.adapters.sqlite.sets import MANY, as_set
from stem_actors.model.lapse import SENDER_KEPT
from stem_actors.model.uniqueness import Claim, Duplicate, HeldClaim, contend

__all__ = ["IS_CLAIM", "MARK", "answered", "contend_for", "end", "end_leased", "find", "free", "remember"]

MARK = 2
IS_CLAIM = f"is_named & {MARK}"

# Made at first use and no part of the schema's version: an older Stem that knows no unique tasks may go on using the file.
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS claim (queue INTEGER NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, claimed_at REAL NOT NULL, "
    "ends_at REAL, refusals INTEGER NOT NULL, duplicates BLOB NOT NULL, PRIMARY KEY (queue, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS claim_by_owner ON claim (queue, owner)",
    "CREATE INDEX IF NOT EXISTS claim_by_end ON claim (ends_at) WHERE ends_at IS NOT NULL",
    # What senders were last told, for as long as they may ask again.
    "CREATE TABLE IF NOT EXISTS claim_answer (namespace INTEGER NOT NULL, sender TEXT NOT NULL, number INTEGER NOT NULL, "
    "at REAL NOT NULL, others BLOB NOT NULL, PRIMARY KEY (namespace, sender)) WITHOUT ROWID",
)
_COLUMNS = "key, owner, claimed_at, ends_at, refusals, duplicates"


def contend_for(connection: sqlite3.Connection, messages: Sequence[tuple[str, int, Claim | None]], now: float) -> dict[str, str]:
    """Take what these messages (id, queue, claim) claim, where nobody else holds it; see `model.uniqueness.contend`."""
    _prepare(connection)
    asked = [(task_id, str(queue), claim) for task_id, queue, claim in messages if claim is not None]
    held: dict[tuple[str, str], HeldClaim] = {}
    for queue in {queue for _, queue, _ in asked}:
        keys = as_set(claim.key for _, of, claim in asked if of == queue)
        rows = connection.execute(f"SELECT {_COLUMNS} FROM claim WHERE queue = ? AND key IN {MANY}", (int(queue), keys))
        held |= {(queue, row[0]): _held(queue, *row) for row in rows}
    others = contend(asked, held, now)
    connection.executemany(
        f"INSERT OR REPLACE INTO claim (queue, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(int(each.queue), *each[1:6], msgpack.packb(each.duplicates)) for each in held.values()],
    )
    connection.execute("DELETE FROM claim WHERE ends_at <= ?", (now,))
    return others


def remember(
    connection: sqlite3.Connection, namespace: int, sender: str, number: int, others: Mapping[str, str], now: float
) -> None:
    """Keep what this publication came to."""
    if others:
        connection.execute(
            "INSERT OR REPLACE INTO claim_answer VALUES (?, ?, ?, ?, ?)", (namespace, sender, number, now, msgpack.packb(others))
        )
        connection.execute("DELETE FROM claim_answer WHERE namespace = ? AND at <= ?", (namespace, now - SENDER_KEPT))


def answered(connection: sqlite3.Connection, namespace: int, sender: str, number: int) -> dict[str, str]:
    """What this publication, the last of its sender, came to the first time."""
    _prepare(connection)
    row = connection.execute(
        "SELECT others FROM claim_answer AS answer JOIN sender AS last ON (last.namespace, name) = (answer.namespace, sender) "
        "WHERE (answer.namespace, sender) = (?, ?) AND (answer.number, last.number) = (?, ?)",
        (namespace, sender, number, number),
    ).fetchone()
    return {} if row is None else dict(msgpack.unpackb(row[0]))


def end(connection: sqlite3.Connection, owners: Iterable[tuple[int, str]]) -> None:
    """These tasks (queue, id), all of which were marked, hold no key any more."""
    marked = list(owners)
    if marked:  # else there may be no such table
        connection.executemany("DELETE FROM claim WHERE (queue, owner) = (?, ?)", marked)


def end_leased(connection: sqlite3.Connection, tokens: str) -> None:
    """The tasks of these leases hold no key any more. Most hold none."""
    end(connection, connection.execute(f"SELECT queue, id FROM leased WHERE token IN {MANY} AND {IS_CLAIM}", (tokens,)))


def find(connection: sqlite3.Connection, namespace: int, key: str, queue: str | None, now: float) -> list[HeldClaim]:
    """Who holds a key, in one queue or in all."""
    _prepare(connection)
    rows = connection.execute(
        f"SELECT name, {_COLUMNS} FROM claim JOIN queue ON queue.id = claim.queue "
        "WHERE namespace = ? AND key = ? AND (? IS NULL OR name = ?) ORDER BY name",
        (namespace, key, queue, queue),
    )
    return [each for row in rows if (each := _held(*row)).stands(now)]


def free(connection: sqlite3.Connection, namespace: int, queue: str, key: str, now: float) -> bool:
    """End a claim; whether there was one."""
    found = find(connection, namespace, key, queue, now)
    connection.execute(
        "DELETE FROM claim WHERE key = ? AND queue = (SELECT id FROM queue WHERE (namespace, name) = (?, ?))",
        (key, namespace, queue),
    )
    return bool(found)


def _prepare(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _held(
    queue: str, key: str, owner: str, claimed_at: float, ends_at: float | None, refusals: int, duplicates: bytes
) -> HeldClaim:
    kept = tuple(Duplicate(*each) for each in msgpack.unpackb(duplicates))
    return HeldClaim(queue, key, owner, claimed_at, ends_at, refusals, kept)
