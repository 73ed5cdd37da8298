"""Task records as rows, the same in every database with columns: what is looked up has its own, the rest is packed as facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import ErrorInfo
from stem_actors.model.record import TaskRecord

__all__ = ["FINALITY", "STATE_TEXT", "packed_facts", "plain", "record_of"]

# Looked up for every task; a look into an Enum takes ten times as long.
FINALITY = {state: state.finality for state in TaskState}
STATE_TEXT = {state: state.value for state in TaskState}


def packed_facts(record: TaskRecord) -> bytes:
    """What nobody selects by: error, whether it may be retried, meta.

    Raises:
        TypeError, ValueError, OverflowError: meta or error holds what has no stored form.
    """
    error = record.error
    facts = (None if error is None else (error.type, error.message, error.stack, error.meta), record.retryable, record.meta)
    packed: bytes = msgpack.packb(facts, default=plain)
    return packed


def plain(value: object) -> Any:
    """A mapping that is no dict."""
    return dict(value)  # type: ignore[call-overload]  # msgpack hands over whatever it cannot pack; dict() refuses in its place


def record_of(row: Sequence[Any]) -> TaskRecord:
    """The record of a row: id, state, attempt, delivery count, replay count, payload, facts, when created and updated."""
    task_id, state, attempt, delivery_count, replay_count, payload, facts, created_at, updated_at = row
    error, retryable, meta = msgpack.unpackb(facts, strict_map_key=False)
    return TaskRecord(
        task_id,
        TaskState(state),
        attempt,
        delivery_count,
        replay_count,
        payload,
        None if error is None else ErrorInfo(*error),
        retryable,
        meta,
        created_at,
        updated_at,
    )
