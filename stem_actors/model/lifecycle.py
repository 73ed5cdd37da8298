"""The states of a task and the legal ways between them, as one table from which the docs are drawn.

Also the rule that decides between two writers of one result record.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["TRANSITIONS", "Event", "Precedence", "TaskState", "next_state"]


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    RETRIED = "retried"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in _FINAL

    @property
    def finality(self) -> int:
        """Orders the states of one attempt: a record never gives way to a less final one."""
        return _FINALITY[self]


_FINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
_FINALITY = {
    TaskState.QUEUED: 0,
    TaskState.RUNNING: 1,
    TaskState.RETRIED: 2,
    TaskState.SUCCEEDED: 3,
    TaskState.FAILED: 3,
    TaskState.CANCELLED: 3,
}


class Event(StrEnum):
    RECEIVED = "received"
    SUCCESS = "success"
    RETRY = "retry"
    DEAD_LETTERED = "dead-lettered"
    REVOKED = "revoked"
    EXPIRED = "expired"
    RELEASED = "released"
    REPLAYED = "replayed"


_S, _E = TaskState, Event

TRANSITIONS: dict[tuple[TaskState, Event], TaskState] = {
    **{
        (waiting, event): after
        for waiting in (_S.QUEUED, _S.RETRIED)
        for event, after in (
            (_E.RECEIVED, _S.RUNNING),
            (_E.DEAD_LETTERED, _S.FAILED),
            (_E.REVOKED, _S.CANCELLED),
            (_E.EXPIRED, _S.CANCELLED),
            (_E.RELEASED, waiting),
        )
    },
    (_S.RUNNING, _E.RECEIVED): _S.RUNNING,
    (_S.RUNNING, _E.SUCCESS): _S.SUCCEEDED,
    (_S.RUNNING, _E.RETRY): _S.RETRIED,
    (_S.RUNNING, _E.DEAD_LETTERED): _S.FAILED,
    (_S.RUNNING, _E.REVOKED): _S.CANCELLED,
    (_S.RUNNING, _E.RELEASED): _S.QUEUED,
    (_S.FAILED, _E.REPLAYED): _S.QUEUED,
    (_S.SUCCEEDED, _E.REPLAYED): _S.QUEUED,
    (_S.CANCELLED, _E.REPLAYED): _S.QUEUED,
}


def next_state(state: TaskState, event: Event) -> TaskState | None:
    """The state after `event`, or None where the table has no such way."""
    return TRANSITIONS.get((state, event))


class Precedence(NamedTuple):
    """What decides between two writes of one record: the greater one stands; an equal one is its holder repeating itself."""

    replay_count: int
    attempt: int
    delivery_count: int
    finality: int
