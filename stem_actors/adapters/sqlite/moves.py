"""Moving messages between the tables of their states. Every function here works inside its caller's transaction.

Owns the order of reading: new work gets a rank behind all of its level, what comes back one before all.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from stem_actors.adapters.sqlite import claims
from stem_actors.adapters.sqlite.connection import Insertion
from stem_actors.adapters.sqlite.sets import MANY, as_set

__all__ = [
    "Moving",
    "add_dead",
    "add_delayed",
    "add_first",
    "add_last",
    "count",
    "end_names",
    "free_names",
    "held_tokens",
    "promote",
    "take_leased",
]

PROMOTE_LIMIT = 1000  # a transaction


class Moving(NamedTuple):
    """A message on its way between two tables. `since`: waiting since; `level`: 9 − priority.

    `is_named`: 1 where its producer chose the id; `claims.MARK` is added where it holds a key until its end.
    """

    queue: int
    level: int
    id: str
    is_named: int
    visibility: float | None
    since: float
    state: bytes
    sig: bytes | None
    body: bytes


_READY = Insertion("ready", "queue, level, rank, id, is_named, visibility, since, state, sig, body")
_DELAYED = Insertion("delayed", "namespace, due, queue, level, id, is_named, visibility, state, sig, body")
_DEAD = Insertion("dead", "queue, dead_at, level, id, is_named, visibility, reason, meta, state, sig, body")


def add_last(connection: sqlite3.Connection, messages: Iterable[Moving]) -> None:
    """Behind all that waits at their level, in the order given."""
    ranks: dict[tuple[int, int], int] = {}
    rows = []
    for message in messages:
        place = message[:2]
        rank = ranks.get(place)
        if rank is None:
            rank = max(0, _edge(connection, "max", place, 0))
        ranks[place] = rank = rank + 1
        rows.append((*place, rank, *message[2:]))
    _READY.run(connection, rows)
    count(connection, "ready", Counter(row[0] for row in rows))


def add_first(connection: sqlite3.Connection, messages: Sequence[Moving]) -> None:
    """Before all that waits at their level, in the order given."""
    ranks: dict[tuple[int, int], int] = {}
    rows = []
    for message in reversed(messages):
        place = message[:2]
        rank = ranks.get(place)
        if rank is None:
            rank = min(1, _edge(connection, "min", place, 1))
        ranks[place] = rank = rank - 1
        rows.append((*place, rank, *message[2:]))
    _READY.run(connection, rows)
    count(connection, "ready", Counter(row[0] for row in rows))


def _edge(connection: sqlite3.Connection, side: str, place: tuple[int, int], empty: int) -> int:
    (rank,) = connection.execute(f"SELECT {side}(rank) FROM ready WHERE queue = ? AND level = ?", place).fetchone()
    return empty if rank is None else int(rank)


def count(connection: sqlite3.Connection, table: str, changes: Mapping[int, int]) -> None:
    """Keep up the number of rows that queues have in `ready` or `delayed`."""
    for queue, change in changes.items():
        connection.execute(f"UPDATE queue SET {table} = {table} + ? WHERE id = ?", (change, queue))


def add_delayed(connection: sqlite3.Connection, namespace: int, messages: Sequence[tuple[float, Moving]]) -> None:
    """Each with the time at which it falls due."""
    _DELAYED.run(
        connection,
        [
            (namespace, due, each.queue, each.level, each.id, each.is_named, each.visibility, each.state, each.sig, each.body)
            for due, each in messages
        ],
    )
    count(connection, "delayed", Counter(each.queue for _, each in messages))


def add_dead(
    connection: sqlite3.Connection,
    namespace: int,
    messages: Sequence[tuple[Moving, str, Mapping[str, Any]]],
    now: float,
) -> None:
    """Each with its reason and the facts that go with it. Ends their names and claims."""
    _DEAD.run(
        connection,
        [
            (
                *(each.queue, now, each.level, each.id, each.is_named, each.visibility, reason),
                *(msgpack.packb(dict(meta)), each.state, each.sig, each.body),
            )
            for each, reason, meta in messages
        ],
    )
    end_names(connection, namespace, [each.id for each, _, _ in messages if each.is_named], now)
    claims.end(connection, [(each.queue, each.id) for each, _, _ in messages if each.is_named & claims.MARK])


def promote(connection: sqlite3.Connection, namespace: int, now: float) -> int:
    """What is due joins the tail of its level, in the order in which it fell due. Returns how many."""
    rows = connection.execute(
        "SELECT number, queue, level, id, is_named, visibility, ?, state, sig, body FROM delayed "
        "WHERE namespace = ? AND due <= ? ORDER BY due, number LIMIT ?",
        (now, namespace, now, PROMOTE_LIMIT),
    ).fetchall()
    if rows:
        numbers = as_set(row[0] for row in rows)
        connection.execute(f"DELETE FROM delayed WHERE number IN {MANY}", (numbers,))
        count(connection, "delayed", {queue: -number for queue, number in Counter(row[1] for row in rows).items()})
        add_last(connection, [Moving(*row[1:]) for row in rows])
    return len(rows)


def held_tokens(connection: sqlite3.Connection, holder: str, tokens: Iterable[int | str]) -> tuple[str, bool]:
    """Those of `tokens` that are leases of `holder`, as a set for SQL, and whether a named message is among them."""
    found, names = connection.execute(
        f"SELECT json_group_array(token), total(is_named) FROM leased WHERE holder = ? AND token IN {MANY}",
        (holder, as_set(tokens)),
    ).fetchone()
    return found, bool(names)


def take_leased(connection: sqlite3.Connection, tokens: str) -> dict[int | str, Moving]:
    """End these leases; the messages by token, in the order of hand-out."""
    rows = connection.execute(
        "SELECT token, queue, level, id, is_named, visibility, since, state, sig, body FROM leased "
        f"WHERE token IN {MANY} ORDER BY token",
        (tokens,),
    ).fetchall()
    connection.execute(f"DELETE FROM leased WHERE token IN {MANY}", (tokens,))
    return {row[0]: Moving(*row[1:]) for row in rows}


def end_names(connection: sqlite3.Connection, namespace: int, ids: Sequence[str], now: float) -> None:
    """Their tasks have ended: the ids are refused for an hour more."""
    if ids:
        connection.execute(
            f"UPDATE named SET ended_at = ? WHERE namespace = ? AND id IN {MANY}",
            (now, namespace, as_set(ids)),
        )


def free_names(connection: sqlite3.Connection, namespace: int, ids: Sequence[str]) -> None:
    """Their tasks were purged before they ran: the ids may be used again."""
    if ids:
        connection.execute(f"DELETE FROM named WHERE namespace = ? AND id IN {MANY}", (namespace, as_set(ids)))
