"""Task records in Postgres. The broker beside it writes its records by the same statement, as part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stem_actors.adapters.postgres.arrays import Bytes, Integers, Texts
from stem_actors.adapters.postgres.connection import Database, Parameters, Transaction
from stem_actors.adapters.record_rows import FINALITY, STATE_TEXT, packed_facts, record_of
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.ports import RecordPage

__all__ = ["STORE", "PostgresResults", "packed_records", "read_record", "topic_of", "write_record"]

PURGE_LIMIT = 5000  # a call

_COLUMNS = "id, state, attempt, delivery_count, replay_count, payload, facts, created_at, updated_at"

STORE = """
    INSERT INTO @result AS standing (
        namespace, created_at, updated_at, expires_at,
        id, state, queue, replay_count, attempt, delivery_count, finality, facts, payload
    )
    SELECT
        %(namespace)s::int, @now, @now, @now + %(ttl)s::float8,
        record.id, record.state, record.queue, replay_count, attempt, delivery_count, finality, facts, payload
    FROM unnest(
        %(ids)s::text[], %(states)s::text[], %(queues)s::text[], %(replay_counts)s::bigint[], %(attempts)s::bigint[],
        %(delivery_counts)s::bigint[], %(finalities)s::bigint[], %(facts)s::bytea[], %(payloads)s::bytea[], %(leases)s::bigint[]
    ) AS record (id, state, queue, replay_count, attempt, delivery_count, finality, facts, payload, lease)
    {only}
    ON CONFLICT (namespace, id) DO UPDATE SET
        state = excluded.state, queue = excluded.queue, replay_count = excluded.replay_count, attempt = excluded.attempt,
        delivery_count = excluded.delivery_count, finality = excluded.finality, facts = excluded.facts,
        payload = excluded.payload, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        created_at = CASE WHEN standing.expires_at <= excluded.updated_at THEN excluded.created_at ELSE standing.created_at END
    WHERE (excluded.replay_count, excluded.attempt, excluded.delivery_count, excluded.finality)
       >= (standing.replay_count, standing.attempt, standing.delivery_count, standing.finality)
       OR standing.expires_at <= excluded.updated_at
    RETURNING id
"""
"""A record gives way to one of at least its precedence, and to any once its time is over. An id stands there once at most.

`{only}`: a condition that keeps those whose `lease` is held; or nothing.
"""


class PostgresResults:
    """A `ResultBackend`. Any thread."""

    def __init__(self, database: Database, namespace: str, ttl: float) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._ttl = ttl
        self._is_closed = False

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        stored: list[bool] = []
        for some in _runs_of_unique(records):
            stored += self._set_some(some)
        return stored

    def _set_some(self, records: Sequence[TaskRecord]) -> list[bool]:
        has_final = any(record.state.is_final for record in records)
        parameters = {**packed_records(records), "namespace": self._namespace, "ttl": self._ttl}
        rows = self._database.run(_SET if has_final else _SET_LAZILY, parameters)
        if has_final:
            self._database.hints.notify([topic_of(self._namespace)])
        done = {row[0] for row in rows}
        return [record.id in done for record in records]

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        namespace = self._namespace

        def announce_all(transaction: Transaction) -> list[TaskRecord | None]:
            found: list[TaskRecord | None] = []
            for record in sorted(records, key=lambda each: each.id):  # one order, lest two who announce wait for each other
                write_record(transaction, namespace, self._ttl, record, unless_ended=True)
            standing = {record.id: read_record(transaction, namespace, record.id) for record in records}
            for record in records:
                there = standing[record.id]
                found.append(there if there is not None and there.ends_attempt_of(record) else None)
            return found

        return self._database.transact(announce_all)

    def get(self, task_id: str) -> TaskRecord | None:
        rows = self._database.read(_GET, {"namespace": self._namespace, "id": task_id})
        return record_of(rows[0]) if rows else None

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        wanted = set(task_ids)
        found = self._final(wanted)
        if len(found) == len(wanted) or timeout <= 0:
            return found
        clock = self._database.clock
        deadline = clock.monotonic() + timeout
        with self._database.hints.listening(topic_of(self._namespace)) as ear:
            is_over = False
            while True:
                ear.forget()
                found |= self._final(wanted - found.keys())
                if is_over or len(found) == len(wanted):
                    return found
                left = deadline - clock.monotonic()
                patience = min(left, self._database.hints.patience)
                is_over = not ear.wait(patience) and left <= patience

    def _final(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        ids = list(task_ids)
        if not ids:
            return {}
        rows = self._database.read(_FINAL, {"namespace": self._namespace, "ids": ids, "finality": TaskState.SUCCEEDED.finality})
        return {row[0]: record_of(row) for row in rows}

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        if limit <= 0:
            return RecordPage([])
        rows = self._database.read(
            _LIST,
            {
                "namespace": self._namespace,
                "state": None if state is None else state.value,
                "queue": queue,
                "limit": limit + 1,
                "offset": offset,
            },
        )
        items = [record_of(row) for row in rows[:limit]]
        return RecordPage(items, offset + limit if len(rows) > limit else None)

    def purge_expired(self) -> int:
        ((count, _),) = self._database.run(_PURGE, {"namespace": self._namespace, "ttl": self._ttl, "limit": PURGE_LIMIT})
        return int(count)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)


_SET = STORE.format(only="")
_SET_LAZILY = f"WITH stored AS ({_SET}) SELECT id, @lazily FROM stored"
_GET = f"SELECT {_COLUMNS} FROM @result WHERE namespace = %(namespace)s AND id = %(id)s AND expires_at > @now"
_FINAL = (
    f"SELECT {_COLUMNS} FROM @result WHERE namespace = %(namespace)s AND id = ANY (%(ids)s::text[]) "
    "AND finality = %(finality)s AND expires_at > @now"
)
_LIST = (
    f"SELECT {_COLUMNS} FROM @result WHERE namespace = %(namespace)s AND expires_at > @now "
    "AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(queue)s::text IS NULL OR queue = %(queue)s) "
    "ORDER BY updated_at DESC, id DESC LIMIT %(limit)s OFFSET %(offset)s"
)
# By the index on updated_at: what this process would keep is not looked at.
_PURGE = """
    WITH gone AS (
        DELETE FROM @result WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM @result WHERE namespace = %(namespace)s AND updated_at <= @now - %(ttl)s AND expires_at <= @now
            ORDER BY updated_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), @lazily
"""


def topic_of(namespace: int) -> str:
    """What waiters for results listen to."""
    return f"r{namespace}"


def packed_records(records: Sequence[TaskRecord], leases: Sequence[int] | None = None) -> Parameters:
    """The parameters of `STORE` that come from the records themselves, each with the lease it comes with.

    Raises:
        TypeError, ValueError, OverflowError: a meta or error holds what has no stored form.
    """
    return {
        "ids": Texts([record.id for record in records]),
        "states": Texts([STATE_TEXT[record.state] for record in records]),
        "queues": Texts([_text_or_none(record.meta.get("queue")) for record in records]),
        "replay_counts": Integers([record.replay_count for record in records]),
        "attempts": Integers([record.attempt for record in records]),
        "delivery_counts": Integers([record.delivery_count for record in records]),
        "finalities": Integers([FINALITY[record.state] for record in records]),
        "facts": Bytes([packed_facts(record) for record in records]),
        "payloads": Bytes([record.payload for record in records]),
        "leases": Integers([0] * len(records) if leases is None else leases),
    }


def write_record(transaction: Transaction, namespace: int, ttl: float, record: TaskRecord, unless_ended: bool = False) -> None:
    """Store one record where nothing of higher precedence stands. `unless_ended`: nor where its very attempt has ended."""
    parameters = {**packed_records([record]), "namespace": namespace, "ttl": ttl}
    transaction.run(_SET_UNLESS_ENDED if unless_ended else _SET, parameters)


_ENDED = f"""
    standing.finality = {TaskState.SUCCEEDED.finality}
    AND (standing.replay_count, standing.attempt) = (excluded.replay_count, excluded.attempt)
"""
_OR_OVER = "OR standing.expires_at <= excluded.updated_at"
_SET_UNLESS_ENDED = _SET.replace(_OR_OVER, f"AND NOT ({_ENDED}) {_OR_OVER}")


def read_record(transaction: Transaction, namespace: int, task_id: str) -> TaskRecord | None:
    """As `get`, inside a transaction."""
    rows = transaction.run(_GET, {"namespace": namespace, "id": task_id})
    return record_of(rows[0]) if rows else None


def _runs_of_unique(records: Sequence[TaskRecord]) -> Iterable[Sequence[TaskRecord]]:
    """The records in order, in parts that hold no id twice."""
    part: dict[str, TaskRecord] = {}
    for record in records:
        if record.id in part:
            yield list(part.values())
            part = {}
        part[record.id] = record
    if part:
        yield list(part.values())


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
