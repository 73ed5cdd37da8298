"""The record of a task that waiters and operators read; and a settlement: a lease, its verdict, the record to store with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, assert_never

from stem_actors.model.delivery import Delivery, Lease, State
from stem_actors.model.lifecycle import Precedence, TaskState
from stem_actors.model.outcome import (
    Ack,
    DeadLetter,
    Defer,
    Died,
    ErrorInfo,
    Expired,
    Failed,
    Interrupted,
    Lapsed,
    Limited,
    Outcome,
    Recorded,
    Rejected,
    Release,
    Retry,
    RetryAsked,
    Revoked,
    Succeeded,
    Unregistered,
    Verdict,
)

__all__ = ["Settlement", "TaskRecord", "replay_facts", "running_record", "settlement"]


_SUCCEEDED = TaskState.SUCCEEDED  # looked at for every task; a look into an Enum takes ten times as long as one here


class TaskRecord(NamedTuple):
    """A task's status as last written. `payload` is the encoded result; times are seconds since the epoch.

    `created_at` and `updated_at` are the store's business: it keeps the first and sets the second at every write.
    """

    id: str
    state: TaskState
    attempt: int = 0
    delivery_count: int = 0
    replay_count: int = 0
    payload: bytes | None = None
    error: ErrorInfo | None = None
    retryable: bool = False
    meta: Mapping[str, Any] = {}
    created_at: float = 0.0
    updated_at: float = 0.0

    def ends_attempt_of(self, other: TaskRecord) -> bool:
        """Whether this says that the very attempt of `other` has ended."""
        return self.state.is_final and (self.replay_count, self.attempt) == (other.replay_count, other.attempt)

    @property
    def precedence(self) -> Precedence:
        return Precedence(self.replay_count, self.attempt, self.delivery_count, self.state.finality)


class Settlement(NamedTuple):
    """How one lease ends: the verdict, the state that travels on (None: as it was), and the record to store beside it."""

    lease: Lease
    verdict: Verdict
    state: State | None = None
    record: TaskRecord | None = None


def settlement(delivery: Delivery, outcome: Outcome, verdict: Verdict, facts: Mapping[str, Any]) -> Settlement:
    """Work out the new state and the record that go with a verdict. Pure.

    `facts` is what the worker knows of the run for the record's meta: worker, startedAt, completedAt (milliseconds; `failedAt`
    in the record of a task that failed for good).
    A delivery that goes back uncharged leaves no record: it is `queued` again, as any task without one.
    """
    if isinstance(outcome, Succeeded):
        return Settlement(delivery.lease, verdict, None, _build(delivery, _SUCCEEDED, facts, outcome.payload))
    record = _record(delivery, outcome, verdict, facts)
    return Settlement(delivery.lease, verdict, _state_after(delivery.state, outcome), record)


def running_record(delivery: Delivery, facts: Mapping[str, Any]) -> TaskRecord:
    """The record of a task that has been running for a while."""
    return _build(delivery, TaskState.RUNNING, facts)


def _state_after(state: State, outcome: Outcome) -> State | None:
    match outcome:
        case Succeeded() | Interrupted() | Limited() | Revoked() | Expired() | Rejected() | Recorded():
            return None
        case Failed():
            return state.retried()
        case RetryAsked(overrides=overrides):
            return state.retried(overrides)
        case Died(cause):
            return state.died(cause)
        case Lapsed():
            return state.lapsed()
        case Unregistered():
            return state.handed_back()
        case _:
            assert_never(outcome)


def _record(delivery: Delivery, outcome: Outcome, verdict: Verdict, facts: Mapping[str, Any]) -> TaskRecord | None:
    if isinstance(outcome, Recorded):
        return None  # it stands already
    match verdict:
        case Ack():
            return _cancelled(delivery, outcome, facts)
        case Retry(delay):
            error = outcome.error if isinstance(outcome, Failed | RetryAsked) else None
            meta = {**facts, "retryDelayMs": round(delay * 1000)}
            return _build(delivery, TaskState.RETRIED, meta, error=error, retryable=True)
        case DeadLetter(reason, meta):
            failed = {("failedAt" if name == "completedAt" else name): fact for name, fact in facts.items()}
            return _build(delivery, TaskState.FAILED, {**failed, "deadLetter": reason}, error=_final_error(outcome, reason, meta))
        case Release() | Defer():
            return None
        case _:
            assert_never(verdict)


def _cancelled(delivery: Delivery, outcome: Outcome, facts: Mapping[str, Any]) -> TaskRecord:
    """Acknowledged without having succeeded: revoked or expired."""
    match outcome:
        case Revoked(reason, requested_by, at):
            revoked_at = None if at is None else round(at * 1000)
            meta = {**facts, "revoked": True, "revokedReason": reason, "revokedBy": requested_by, "revokedAt": revoked_at}
            return _build(delivery, TaskState.CANCELLED, meta, error=ErrorInfo("TaskRevoked", reason or "the task was revoked"))
        case _:
            error = ErrorInfo("TaskExpired", "the task expired before it started")
            expires_at = delivery.envelope.expires_at
            expired_at = None if expires_at is None else round(expires_at * 1000)
            return _build(delivery, TaskState.CANCELLED, {**facts, "stem.expired": True, "expiredAt": expired_at}, error=error)


def _final_error(outcome: Outcome, reason: str, meta: Mapping[str, Any]) -> ErrorInfo:
    match outcome:
        case Failed(error) | Rejected(_, error):
            return error
        case RetryAsked(error):
            return ErrorInfo("RetryExhausted", f"no retries left: {error.message}", error.stack)
        case Died(cause):
            return ErrorInfo("WorkerLost", f"its executor died under it each time, last: {cause}", meta=dict(meta))
        case _:
            return ErrorInfo("Unregistered", f"no worker knows the task {meta.get('task')!r} ({reason})")


def _build(
    delivery: Delivery,
    state: TaskState,
    meta: Mapping[str, Any],
    payload: bytes | None = None,
    error: ErrorInfo | None = None,
    retryable: bool = False,
) -> TaskRecord:
    envelope, counters, _, _ = delivery
    replays = replay_facts(counters) if counters.replay_count else {}
    return TaskRecord(
        envelope.id,
        state,
        counters.attempt,
        counters.delivery_count,
        counters.replay_count,
        payload,
        error,
        retryable,
        {"task": envelope.name, "queue": envelope.queue, **envelope.meta, **replays, **meta},
    )


def replay_facts(state: State) -> dict[str, Any]:
    """What each record after a replay says of it."""
    return {"lastReplayAt": round((state.last_replay_at or 0.0) * 1000), "replayCount": state.replay_count}
