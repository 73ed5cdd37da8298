"""Rate and concurrency limits in Postgres: a row for each bucket that is not full, for each place that is held, for each line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stem_actors.adapters.postgres.arrays import Reals, Texts
from stem_actors.adapters.postgres.connection import Database, Transaction
from stem_actors.adapters.postgres.schema import LOCK
from stem_actors.model.concurrency import Place, Semaphore, grant
from stem_actors.model.rate import Bucket, Limit

__all__ = ["PostgresRateLimits"]

# Keys are taken in one order, so that two who ask for the same never wait for each other. An update that changes nothing locks.
_TAKE_BUCKETS = """
    INSERT INTO @rate AS bucket (namespace, key, full_at, line_ends, ends_at)
    SELECT %(namespace)s::int, unnest(%(keys)s::text[]), 0, 0, 0 ORDER BY 2
    ON CONFLICT (namespace, key) DO UPDATE SET ends_at = bucket.ends_at
    RETURNING key, full_at, line_ends
"""
_PUT_BUCKETS = """
    UPDATE @rate AS bucket SET full_at = told.full_at, line_ends = told.line_ends, ends_at = told.ends_at
    FROM unnest(%(keys)s::text[], %(full_at)s::float8[], %(line_ends)s::float8[], %(ends_at)s::float8[])
        AS told (key, full_at, line_ends, ends_at)
    WHERE bucket.namespace = %(namespace)s AND bucket.key = told.key
"""
_TURNS = f"""
    SELECT pg_advisory_xact_lock(turn) FROM (
        SELECT DISTINCT hashtextextended('@place' || %(namespace)s::int || ':' || key, {LOCK}) AS turn
        FROM unnest(%(keys)s::text[]) AS key ORDER BY turn
    ) AS turns
"""
_PLACES = """
    SELECT key, holder, ends_at FROM @place
    WHERE namespace = %(namespace)s AND key = ANY (%(keys)s::text[]) AND ends_at > %(now)s::float8
"""
_LINES = """
    SELECT key, line_ends, next_task, next_since, next_until FROM @line
    WHERE namespace = %(namespace)s AND key = ANY (%(keys)s::text[]) AND greatest(line_ends, next_until) > %(now)s::float8
"""
_PUT_PLACES = """
    INSERT INTO @place (namespace, key, holder, ends_at)
    SELECT %(namespace)s::int, * FROM unnest(%(keys)s::text[], %(holders)s::text[], %(ends)s::float8[])
    ON CONFLICT (namespace, key, holder) DO UPDATE SET ends_at = excluded.ends_at
"""
_PUT_LINE = """
    INSERT INTO @line (namespace, key, line_ends, next_task, next_since, next_until)
    VALUES (%(namespace)s, %(key)s, %(line_ends)s::float8, %(next_task)s, %(next_since)s::float8, %(next_until)s::float8)
    ON CONFLICT (namespace, key) DO UPDATE SET
        line_ends = excluded.line_ends, next_task = excluded.next_task, next_since = excluded.next_since,
        next_until = excluded.next_until
"""
_FREE = """
    DELETE FROM @place WHERE namespace = %(namespace)s
        AND (key, holder) IN (SELECT * FROM unnest(%(keys)s::text[], %(holders)s::text[]))
"""
_FORGET = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM {table} WHERE namespace = %(namespace)s AND {end} <= %(now)s::float8 LIMIT 1000 FOR UPDATE SKIP LOCKED
    ))
"""
_FORGET_BUCKETS = _FORGET.format(table="@rate", end="ends_at")
_FORGET_PLACES = _FORGET.format(table="@place", end="ends_at")
_FORGET_LINES = _FORGET.format(table="@line", end="greatest(line_ends, next_until)")


class PostgresRateLimits:
    """A `RateLimiter`. Any thread."""

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database.attach()
        self._namespace_name = namespace
        self._is_closed = False

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        bucket_keys = sorted({each.key for some in asked for each in some if isinstance(each, Limit)})
        place_keys = sorted({each.key for some in asked for each in some if isinstance(each, Place)})
        if not (bucket_keys or place_keys):
            return [None] * len(asked)
        namespace = self._namespace

        def acquire_all(transaction: Transaction) -> list[float | None]:
            places = _Places(transaction, namespace, place_keys)
            buckets = {} if not bucket_keys else _buckets(transaction, namespace, bucket_keys)
            after = dict(places.before)
            answers = grant(asked, buckets, after, places.now)
            places.store(after)
            if bucket_keys:
                _store_buckets(transaction, namespace, buckets, places.now)
            return answers

        return self._database.transact(acquire_all)

    def renew(self, places: Sequence[Place]) -> list[bool]:
        namespace = self._namespace

        def renew_all(transaction: Transaction) -> list[bool]:
            standing = _Places(transaction, namespace, sorted({place.key for place in places}))
            after = dict(standing.before)
            answers = []
            for place in places:
                renewed = after.get(place.key, Semaphore()).renewed(place, standing.now)
                if renewed is not None:
                    after[place.key] = renewed
                answers.append(renewed is not None)
            standing.store(after)
            return answers

        return self._database.transact(renew_all, durable=False) if places else []

    def release(self, places: Sequence[Place]) -> None:
        if places:
            keys, holders = Texts([place.key for place in places]), Texts([place.holder for place in places])
            self._database.run(_FREE, {"namespace": self._namespace, "keys": keys, "holders": holders})

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._database.detach()

    @property
    def _namespace(self) -> int:
        return self._database.namespace_id(self._namespace_name)


def _buckets(transaction: Transaction, namespace: int, keys: Sequence[str]) -> dict[str, Bucket]:
    rows = transaction.run(_TAKE_BUCKETS, {"namespace": namespace, "keys": Texts(keys)})
    return {key: Bucket(full_at, line_ends) for key, full_at, line_ends in rows}


def _store_buckets(transaction: Transaction, namespace: int, buckets: Mapping[str, Bucket], now: float) -> None:
    told: dict[str, Any] = {
        "namespace": namespace,
        "keys": Texts(list(buckets)),
        "full_at": Reals([each.full_at for each in buckets.values()]),
        "line_ends": Reals([each.line_ends for each in buckets.values()]),
        "ends_at": Reals([each.ends_at for each in buckets.values()]),
    }
    transaction.run(_PUT_BUCKETS, told)
    transaction.run(_FORGET_BUCKETS, {"namespace": namespace, "now": now})


class _Places:
    """The semaphores of some keys within a transaction, which has its turn at them until it ends."""

    def __init__(self, transaction: Transaction, namespace: int, keys: Sequence[str]) -> None:
        self._transaction = transaction
        self._namespace = namespace
        here: dict[str, Any] = {"namespace": namespace, "keys": Texts(keys)}
        if keys:
            transaction.run(_TURNS, here)
        ((self.now,),) = transaction.run("SELECT @now")
        self.before: Mapping[str, Semaphore] = self._load({**here, "now": self.now}) if keys else {}

    def _load(self, here: Mapping[str, Any]) -> dict[str, Semaphore]:
        ends: dict[str, dict[str, float]] = defaultdict(dict)
        for key, holder, ends_at in self._transaction.run(_PLACES, here):
            ends[key][holder] = ends_at
        found = {key: Semaphore(ends.pop(key, {}), *line) for key, *line in self._transaction.run(_LINES, here)}
        return found | {key: Semaphore(held) for key, held in ends.items()}

    def store(self, after: Mapping[str, Semaphore]) -> None:
        """Write down what has changed."""
        if not after:
            return
        here = {"namespace": self._namespace, "now": self.now}
        self._put_places([(key, *each) for key in after for each in self._taken(key, after[key])])
        for key, semaphore in after.items():
            if semaphore[1:] != self.before.get(key, Semaphore())[1:]:
                self._transaction.run(_PUT_LINE, {**here, "key": key, **semaphore._asdict()})
        for statement in (_FORGET_PLACES, _FORGET_LINES):
            self._transaction.run(statement, here)

    def _taken(self, key: str, semaphore: Semaphore) -> Iterable[tuple[str, float]]:
        old = self.before.get(key, Semaphore()).ends
        return [each for each in semaphore.ends.items() if old.get(each[0]) != each[1]]

    def _put_places(self, taken: Sequence[tuple[str, str, float]]) -> None:
        if taken:
            keys, holders, ends = zip(*taken, strict=True)
            told = {"keys": Texts(keys), "holders": Texts(holders), "ends": Reals(ends)}
            self._transaction.run(_PUT_PLACES, {"namespace": self._namespace, **told})
