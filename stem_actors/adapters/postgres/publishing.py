"""Storing messages in Postgres: one statement, or for those with an id or a key to contend for, a few in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from stem_actors.adapters.postgres.arrays import Bytes, Integers, Reals, Texts
from stem_actors.adapters.postgres.claims import CLAIM, NAME, contend_for
from stem_actors.adapters.postgres.connection import Database, Transaction
from stem_actors.errors import DuplicateTaskId
from stem_actors.model.envelope import HIGHEST_PRIORITY, clamp_priority
from stem_actors.model.lapse import NAME_KEPT
from stem_actors.model.uniqueness import is_kept_out
from stem_actors.ports import Message

__all__ = ["Publication", "publish", "publish_within"]

_NEW = """
    new AS (
        SELECT * FROM unnest(
            %(queues)s::bigint[], %(levels)s::bigint[], %(ids)s::text[], %(marks)s::bigint[], %(visibilities)s::float8[],
            %(delays)s::float8[], %(sigs)s::bytea[], %(bodies)s::bytea[]
        ) WITH ORDINALITY AS message (queue, level, id, marks, visibility, delay, sig, body, place)
        {only}
    ),
    at_once AS (
        INSERT INTO @ready (queue, level, rank, id, marks, visibility, since, state, sig, body)
        SELECT queue, level, nextval('@number'), id, marks, visibility, @now, '', sig, body
        FROM (SELECT * FROM new WHERE delay <= 0 ORDER BY place) AS message
    ),
    later AS (
        INSERT INTO @delayed (namespace, due, number, queue, level, id, marks, visibility, state, sig, body)
        SELECT %(namespace)s::int, @now + delay, nextval('@number'), queue, level, id, marks, visibility, '', sig, body
        FROM (SELECT * FROM new WHERE delay > 0 ORDER BY place) AS message
    )
"""
# A repeated number finds its row, or one behind it. Two who send the same one at once meet at the key.
_NUMBER = """
    number AS (
        INSERT INTO @sender (namespace, name, number, at)
        SELECT %(namespace)s::int, %(sender)s::text, %(number)s::bigint, @now
        WHERE NOT EXISTS (
            SELECT FROM @sender WHERE namespace = %(namespace)s AND name = %(sender)s AND number >= %(number)s
        )
        ON CONFLICT DO NOTHING RETURNING 1
    ),
    before AS (
        DELETE FROM @sender
        WHERE namespace = %(namespace)s AND name = %(sender)s AND number >= %(previous)s AND number < %(number)s
            AND EXISTS (SELECT FROM number)
    )
"""
_PUBLISH = f"WITH {_NUMBER}, {_NEW.format(only='WHERE EXISTS (SELECT FROM number)')} SELECT count(*) FROM number"
_TAKE_NUMBER = f"WITH {_NUMBER} SELECT count(*) FROM number"
_ADD = f"WITH {_NEW.format(only='')} SELECT 1"

_ONE_SENDER = "namespace = %(namespace)s AND name = %(sender)s AND number = %(number)s"
_ANSWER = f"SELECT answer FROM @sender WHERE {_ONE_SENDER} AND answer IS NOT NULL"
_REMEMBER = f"UPDATE @sender SET answer = %(answer)s::bytea WHERE {_ONE_SENDER}"

_TAKE_NAMES = """
    INSERT INTO @named AS name (namespace, id) SELECT %(namespace)s::int, unnest(%(names)s::text[]) ORDER BY 2
    ON CONFLICT (namespace, id) DO UPDATE SET ended_at = NULL WHERE name.ended_at <= @now - %(kept)s::float8
    RETURNING id
"""


class Publication(NamedTuple):
    """What is stored at once, all of it or nothing; `queues`: their numbers by name."""

    namespace: int
    queues: Mapping[str, int]
    messages: Sequence[Message]

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to contend for."""
        return not any(message.is_chosen_id or message.claim is not None for message in self.messages)

    def without(self, others: Mapping[str, str]) -> Publication:
        """What is left when those that others keep out are."""
        return self._replace(messages=[each for each in self.messages if not is_kept_out(each.id, each.claim, others)])

    @property
    def parameters(self) -> dict[str, Any]:
        messages = self.messages
        return {
            "namespace": self.namespace,
            "queues": Integers([self.queues[message.queue] for message in messages]),
            "levels": Integers([HIGHEST_PRIORITY - clamp_priority(message.priority) for message in messages]),
            "ids": Texts([message.id for message in messages]),
            "marks": Integers([_marks(message) for message in messages]),
            "visibilities": Reals([message.visibility_timeout for message in messages]),
            "delays": Reals([message.delay for message in messages]),
            "sigs": Bytes([message.sig for message in messages]),
            "bodies": Bytes([message.body for message in messages]),
        }


def publish(database: Database, publication: Publication, sender: str, number: int, previous: int) -> Mapping[str, str]:
    """As `Broker.publish`. `previous`: a number of this sender before `number`, the last if that is known, else 0."""
    told = {"namespace": publication.namespace, "sender": sender, "number": number, "previous": previous}
    if publication.is_plain:
        database.run(_PUBLISH, {**told, **publication.parameters})
        return {}

    def publish_all(transaction: Transaction) -> Mapping[str, str]:
        ((is_new,),) = transaction.run(_TAKE_NUMBER, told)
        if not is_new:
            rows = transaction.run(_ANSWER, told)
            return dict(msgpack.unpackb(rows[0][0])) if rows else {}
        others = publish_within(transaction, publication)
        if others:
            transaction.run(_REMEMBER, {**told, "answer": msgpack.packb(others)})
        return others

    return database.transact(publish_all)


def publish_within(transaction: Transaction, publication: Publication) -> Mapping[str, str]:
    """The same as part of a transaction, and without a number, since it stands and falls with that.

    Raises:
        DuplicateTaskId: the transaction is to be undone.
    """
    others: Mapping[str, str] = {}
    if not publication.is_plain:
        namespace, queues, messages = publication
        if any(message.claim is not None for message in messages):
            others = contend_for(transaction, namespace, [(each.id, queues[each.queue], each.claim) for each in messages])
            publication = publication.without(others)
        _take_names(transaction, namespace, [message.id for message in publication.messages if message.is_chosen_id])
    transaction.run(_ADD, publication.parameters)
    return others


def _take_names(transaction: Transaction, namespace: int, names: Sequence[str]) -> None:
    if not names:
        return
    duplicates = [task_id for task_id, count in Counter(names).items() if count > 1]
    if not duplicates:
        taken = transaction.run(_TAKE_NAMES, {"namespace": namespace, "names": Texts(names), "kept": NAME_KEPT})
        duplicates = sorted(set(names) - {task_id for (task_id,) in taken})
    if duplicates:
        raise DuplicateTaskId(
            f"the id {duplicates[0]!r} belongs to a task that is pending or ended less than an hour ago; nothing was enqueued."
        )


def _marks(message: Message) -> int:
    holds_a_key = message.claim is not None and message.claim.lasts is None
    return (NAME if message.is_chosen_id else 0) | (CLAIM if holds_a_key else 0)
