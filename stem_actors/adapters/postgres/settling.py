"""Ending leases in Postgres: one statement that removes them, moves on what lives on, and stores the records that come along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import msgpack

from stem_actors.adapters.postgres.arrays import Bytes, Integers, Reals, Texts
from stem_actors.adapters.postgres.claims import ENDING
from stem_actors.adapters.postgres.connection import Database
from stem_actors.adapters.postgres.results import STORE, packed_records
from stem_actors.model.delivery import Lease
from stem_actors.model.lapse import counted, repacked
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement

__all__ = ["held_leases", "settle"]

# The tokens stand there twice, as a table to join with and as a list to look up by: statistics of a table that is nearly empty
# most of the time make the planner read it from end to end, and keep that plan when it has grown. `(… IN …) IS TRUE` is looked up
# in a table of hashes, however few rows the planner expects; what it may join it would compare each with each.
_ACKED, _FIRST, _LAST, _LATER, _DEAD = range(5)

_ACK = f"""
    told AS (SELECT * FROM unnest(%(tokens)s::bigint[], %(holders)s::text[]) AS told (token, holder)),
    gone AS (
        DELETE FROM @leased AS lease
        WHERE token = ANY (%(tokens)s::bigint[]) AND ((token, holder) IN (SELECT token, holder FROM told)) IS TRUE
        RETURNING token, namespace, queue, id, marks
    ),
    {ENDING.format(ended="true")}
"""
_MOVE = f"""
    told AS (
        SELECT * FROM unnest(
            %(tokens)s::bigint[], %(holders)s::text[], %(kinds)s::bigint[], %(delays)s::float8[], %(reasons)s::text[],
            %(metas)s::bytea[], %(new_states)s::bytea[]
        ) WITH ORDINALITY AS told (token, holder, kind, delay, reason, meta, new_state, place)
    ),
    gone AS (
        DELETE FROM @leased AS lease USING told
        WHERE lease.token = ANY (%(tokens)s::bigint[]) AND lease.token = told.token AND lease.holder = told.holder
        RETURNING lease.*, kind, delay, reason, meta, coalesce(new_state, lease.state) AS onwards, place
    ),
    first AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, -nextval('@number'), id, marks, visibility, since, onwards, sig, body
        FROM (SELECT * FROM gone WHERE kind = {_FIRST} ORDER BY token DESC) AS message
    ),
    last AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, nextval('@number'), id, marks, visibility, @now, onwards, sig, body
        FROM (SELECT * FROM gone WHERE kind = {_LAST} ORDER BY place) AS message
    ),
    later AS (
        INSERT INTO @delayed (namespace, due, number, queue, level, id, marks, visibility, state, sig, body)
        SELECT namespace, @now + delay, nextval('@number'), queue, level, id, marks, visibility, onwards, sig, body
        FROM (SELECT * FROM gone WHERE kind = {_LATER} ORDER BY place) AS message
    ),
    dead AS (
        INSERT INTO @dead (number, dead_at, namespace, queue, level, id, marks, visibility, reason, meta, state, sig, body)
        SELECT nextval('@number'), @now, namespace, queue, level, id, marks, visibility, reason, meta, onwards, sig, body
        FROM (SELECT * FROM gone WHERE kind = {_DEAD} ORDER BY place) AS message
    ),
    {ENDING.format(ended=f"kind IN ({_ACKED}, {_DEAD})")}
"""
_RECORD = STORE.format(only="WHERE (record.lease IN (SELECT token FROM gone)) IS TRUE")
_STATEMENTS = {
    (all_acked, writes): f"WITH {moving}{f', stored AS ({_RECORD})' if writes else ''} SELECT token FROM gone"
    for all_acked, moving in ((True, _ACK), (False, _MOVE))
    for writes in (True, False)
}
_STATES = "SELECT token, state FROM @leased WHERE token = ANY (%(tokens)s::bigint[])"


def settle(database: Database, namespace: int, settlements: Sequence[Settlement], result_ttl: float | None) -> set[int]:
    """End these leases, no two of them the same; the tokens that were held. `result_ttl` None: records are not stored here.

    Raises:
        Unstorable, TypeError, ValueError, OverflowError: one of them is to blame, and nothing has happened.
    """
    all_acked = all(isinstance(each.verdict, Ack) for each in settlements)
    parameters = {"namespace": namespace, **held_leases([each.lease for each in settlements])}
    if not all_acked:
        parameters |= _told(database, settlements)
    recorded = [] if result_ttl is None else [each for each in settlements if each.record is not None]
    if recorded:
        recorded.sort(key=_record_id)  # one order, lest two who settle wait for each other
        records = [each.record for each in recorded if each.record is not None]
        parameters |= packed_records(records, [_number(each.lease.token) for each in recorded])
        parameters["ttl"] = result_ttl
    return {token for (token,) in database.run(_STATEMENTS[all_acked, bool(recorded)], parameters)}


def held_leases(leases: Sequence[Lease]) -> dict[str, Any]:
    """Tokens and holders as parameters."""
    return {
        "tokens": Integers([_number(token) for token, _, _, _, _ in leases]),
        "holders": Texts([holder for _, holder, _, _, _ in leases]),
    }


def _told(database: Database, settlements: Sequence[Settlement]) -> Mapping[str, Any]:
    """What is to become of each message."""
    stored = _stored_states(database, [each for each in settlements if each.state is None and not isinstance(each.verdict, Ack)])
    kinds: list[int] = []
    delays: list[float] = []
    reasons: list[str | None] = []
    metas: list[bytes | None] = []
    for each in settlements:
        kind, delay, reason, meta = _fate(each.verdict)
        kinds.append(kind)
        delays.append(delay)
        reasons.append(reason)
        metas.append(meta)
    return {
        "kinds": Integers(kinds),
        "delays": Reals(delays),
        "reasons": Texts(reasons),
        "metas": Bytes(metas),
        "new_states": Bytes(
            [stored.get(each.lease.token) if each.state is None else repacked(each.state, b"") for each in settlements]
        ),
    }


def _fate(verdict: Verdict) -> tuple[int, float, str | None, bytes | None]:
    match verdict:
        case Ack():
            return _ACKED, 0.0, None, None
        case Release():
            return _FIRST, 0.0, None, None
        case Defer(delay) | Retry(delay):
            return (_LATER if delay > 0 else _LAST), delay, None, None
        case DeadLetter(reason, facts):
            return _DEAD, 0.0, reason, msgpack.packb(dict(facts))
        case _:
            assert_never(verdict)


def _stored_states(database: Database, settlements: Sequence[Settlement]) -> dict[int | str, bytes]:
    """The states to go on with of those that travel on as they were, their hand-out counted. What is no lease is left out."""
    if not settlements:
        return {}
    rows = database.run(_STATES, {"tokens": Integers([_number(each.lease.token) for each in settlements])})
    return {token: repacked(counted(state), state) for token, state in rows}


def _number(token: int | str) -> int:
    """A token of ours; any other is no lease."""
    return token if isinstance(token, int) else -1


def _record_id(settlement: Settlement) -> str:
    return "" if settlement.record is None else settlement.record.id
