"""Claims of unique tasks in Postgres: a row for each key that is held.

A message that holds a key until its end says so by a bit of its `marks`, which travels with it; so a message that holds none is
never asked about one. Who wants a key takes a turn at it first, since a row that is not there cannot be locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from stem_actors.adapters.postgres.arrays import Bytes, Integers, Reals, Texts
from stem_actors.adapters.postgres.connection import Database, Transaction
from stem_actors.adapters.postgres.schema import LOCK
from stem_actors.model.uniqueness import Claim, Duplicate, HeldClaim, contend

__all__ = ["CLAIM", "ENDING", "END_LEASED", "NAME", "contend_for", "find", "free"]

NAME, CLAIM = 1, 2
"""Of a message's marks: its producer chose the id; it holds a key until its end."""

ENDING = f"""
    nameless AS (
        UPDATE @named AS name SET ended_at = @now FROM gone
        WHERE gone.marks & {NAME} <> 0 AND {{ended}} AND name.namespace = gone.namespace AND name.id = gone.id
    ),
    unclaimed AS (
        DELETE FROM @claim AS claim USING gone
        WHERE gone.marks & {CLAIM} <> 0 AND {{ended}} AND claim.queue = gone.queue AND claim.owner = gone.id
    )
"""
"""Parts of a statement in which messages are `gone`: of those that have `{ended}` ids are kept an hour, and keys freed."""

END_LEASED = f"""
    WITH told AS (SELECT * FROM unnest(%(tokens)s::bigint[], %(holders)s::text[]) AS told (token, holder)),
    held AS (
        SELECT lease.token, lease.holder, lease.queue, lease.id, lease.marks FROM @leased AS lease JOIN told USING (token, holder)
        WHERE lease.token = ANY (%(tokens)s::bigint[]) ORDER BY lease.token FOR UPDATE OF lease
    ),
    unclaimed AS (
        DELETE FROM @claim AS claim USING held
        WHERE held.marks & {CLAIM} <> 0 AND claim.queue = held.queue AND claim.owner = held.id
    )
    SELECT token, holder FROM held
"""

_COLUMNS = "key, owner, claimed_at, ends_at, refusals, duplicates"
_PLACES = "unnest(%(queues)s::bigint[], %(keys)s::text[])"
_TURNS = f"""
    SELECT pg_advisory_xact_lock(turn) FROM (
        SELECT DISTINCT hashtextextended('@claim' || queue || ':' || key, {LOCK}) AS turn
        FROM {_PLACES} AS wanted (queue, key) ORDER BY turn
    ) AS turns
"""
_LOAD = f"""
    SELECT queue, {_COLUMNS}, @now FROM @claim WHERE (queue, key) IN (SELECT * FROM {_PLACES}) ORDER BY queue, key FOR UPDATE
"""
_STORE = f"""
    INSERT INTO @claim (namespace, queue, {_COLUMNS})
    SELECT %(namespace)s::int, * FROM unnest(
        %(queues)s::bigint[], %(keys)s::text[], %(owners)s::text[], %(claimed)s::float8[], %(ends)s::float8[],
        %(refusals)s::bigint[], %(duplicates)s::bytea[]
    )
    ON CONFLICT (queue, key) DO UPDATE SET
        owner = excluded.owner, claimed_at = excluded.claimed_at, ends_at = excluded.ends_at, refusals = excluded.refusals,
        duplicates = excluded.duplicates
"""
_FIND = f"""
    SELECT name, {_COLUMNS} FROM @claim AS claim JOIN @queue AS queue ON queue.id = claim.queue
    WHERE queue.namespace = %(namespace)s AND key = %(key)s AND (%(queue)s::text IS NULL OR name = %(queue)s)
        AND (ends_at IS NULL OR ends_at > @now)
    ORDER BY name
"""
_FREE = "DELETE FROM @claim WHERE queue = %(queue)s AND key = %(key)s RETURNING ends_at IS NULL OR ends_at > @now"


def contend_for(transaction: Transaction, namespace: int, messages: Sequence[tuple[str, int, Claim | None]]) -> dict[str, str]:
    """Take what these messages (id, queue, claim) claim, where nobody else holds it; see `model.uniqueness.contend`."""
    asked = [(task_id, str(queue), claim) for task_id, queue, claim in messages if claim is not None]
    wanted = {
        "queues": Integers([int(queue) for _, queue, _ in asked]),
        "keys": Texts([claim.key for _, _, claim in asked]),
    }
    transaction.run(_TURNS, wanted)
    rows = transaction.run(_LOAD, wanted)
    now = rows[0][-1] if rows else transaction.run("SELECT @now")[0][0]
    held = {(str(queue), row[0]): _held(str(queue), row) for queue, *row, _ in rows}
    others = contend(asked, held, now)
    after = list(held.values())
    transaction.run(
        _STORE,
        {
            "namespace": namespace,
            "queues": Integers([int(each.queue) for each in after]),
            "keys": Texts([each.key for each in after]),
            "owners": Texts([each.owner for each in after]),
            "claimed": Reals([each.claimed_at for each in after]),
            "ends": Reals([each.ends_at for each in after]),
            "refusals": Integers([each.refusals for each in after]),
            "duplicates": Bytes([msgpack.packb(each.duplicates) for each in after]),
        },
    )
    return others


def find(database: Database, namespace: int, key: str, queue: str | None) -> list[HeldClaim]:
    """Who holds a key, in one queue or in all."""
    rows = database.read(_FIND, {"namespace": namespace, "key": key, "queue": queue})
    return [_held(name, row) for name, *row in rows]


def free(database: Database, namespace: int, queue: str, key: str) -> bool:
    """End a claim; whether there was one."""
    rows = database.run(_FREE, {"queue": database.queue_id(namespace, queue), "key": key})
    return bool(rows and rows[0][0])


def _held(queue: str, row: Sequence[Any]) -> HeldClaim:
    key, owner, claimed_at, ends_at, refusals, duplicates = row
    kept = tuple(Duplicate(*each) for each in msgpack.unpackb(duplicates))
    return HeldClaim(queue, key, owner, claimed_at, ends_at, refusals, kept)
