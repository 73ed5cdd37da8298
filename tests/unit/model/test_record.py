from __future__ import annotations

from typing import Any

import pytest

from stem_actors.model.delivery import State
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
    Rejected,
    Release,
    Retry,
    RetryAsked,
    Revoked,
    Succeeded,
    Unregistered,
    Verdict,
)
from stem_actors.model.record import TaskRecord, running_record, settlement
from tests.unit.model.values import LEASE, delivery_of

ERROR = ErrorInfo("ValueError", "no", "Traceback …")
STATE = State(attempt=1, delivery_count=4, lapses=1)


def record(outcome: Outcome, verdict: Verdict, **facts: Any) -> TaskRecord:
    found = settlement(delivery_of(STATE, meta={"k": 1}), outcome, verdict, facts).record
    assert found is not None
    return found


def test_a_record_carries_the_counters_of_its_delivery() -> None:
    written = record(Succeeded(b"\x01"), Ack(), worker="w-1")
    assert (written.id, written.state, written.payload) == ("id-1", TaskState.SUCCEEDED, b"\x01")
    assert written.precedence == Precedence(replay_count=0, attempt=1, delivery_count=4, finality=3)
    assert written.meta == {"task": "shop.mail", "queue": "default", "k": 1, "worker": "w-1"}


@pytest.mark.parametrize(("outcome", "verdict"), [(Succeeded(b"\x01"), Ack()), (Failed(ERROR), Retry(1)), (Expired(), Ack())])
def test_records_after_a_replay_go_on_telling_of_it(outcome: Outcome, verdict: Verdict) -> None:
    replayed = STATE.replayed(1700000000.5)
    written = settlement(delivery_of(replayed), outcome, verdict, {}).record
    assert written is not None
    assert written.precedence.replay_count == 1
    assert (written.meta["replayCount"], written.meta["lastReplayAt"]) == (1, 1700000000500)


def test_a_failure_to_be_retried_says_when_and_why() -> None:
    written = record(Failed(ERROR), Retry(1.25))
    assert (written.state, written.error, written.retryable) == (TaskState.RETRIED, ERROR, True)
    assert written.meta["retryDelayMs"] == 1250
    assert record(RetryAsked(ERROR), Retry(0)).error == ERROR


@pytest.mark.parametrize(
    ("outcome", "reason", "error"),
    [
        (Failed(ERROR), "max-retries-exhausted", ERROR),
        (Rejected("malformed", ERROR), "malformed", ERROR),
        (RetryAsked(ERROR), "max-retries-exhausted", ErrorInfo("RetryExhausted", "no retries left: no", "Traceback …")),
        (
            Died("signal 9"),
            "poison",
            ErrorInfo("WorkerLost", "its executor died under it each time, last: signal 9", meta={"task": "t"}),
        ),
        (Unregistered(), "unregistered-task", ErrorInfo("Unregistered", "no worker knows the task 't' (unregistered-task)")),
    ],
)
def test_a_dead_letter_is_a_failure_with_its_reason(outcome: Outcome, reason: str, error: ErrorInfo) -> None:
    written = record(outcome, DeadLetter(reason, {"task": "t"}))
    assert (written.state, written.error, written.retryable) == (TaskState.FAILED, error, False)
    assert written.meta["deadLetter"] == reason


def test_what_failed_for_good_says_when_instead_of_when_it_completed() -> None:
    facts = {"worker": "w-1", "startedAt": 1000, "completedAt": 2000}
    failed = settlement(delivery_of(), Failed(ERROR), DeadLetter("max-retries-exhausted", {}), facts).record
    retried = settlement(delivery_of(), Failed(ERROR), Retry(1.0), facts).record
    assert failed is not None
    assert retried is not None
    assert (failed.meta["startedAt"], failed.meta["failedAt"], "completedAt" in failed.meta) == (1000, 2000, False)
    assert (retried.meta["completedAt"], "failedAt" in retried.meta) == (2000, False)


def test_a_revoked_task_is_cancelled_and_says_by_whom() -> None:
    written = record(Revoked("not needed", "ops", 1_700_000_000.5), Ack())
    assert (written.state, written.error) == (TaskState.CANCELLED, ErrorInfo("TaskRevoked", "not needed"))
    assert (written.meta["revoked"], written.meta["revokedReason"], written.meta["revokedBy"]) == (True, "not needed", "ops")
    assert written.meta["revokedAt"] == 1_700_000_000_500


def test_an_expired_task_is_cancelled_and_says_when_it_expired() -> None:
    written = settlement(delivery_of(expires_at=1_700_000_000.5), Expired(), Ack(), {}).record
    assert written is not None
    assert written.state is TaskState.CANCELLED
    assert written.error is not None
    assert (written.error.type, written.meta["stem.expired"]) == ("TaskExpired", True)
    assert written.meta["expiredAt"] == 1_700_000_000_500


@pytest.mark.parametrize(
    ("outcome", "verdict", "state"),
    [
        (Interrupted(), Release(), None),
        (Lapsed("x"), Release(), STATE._replace(lapses=2)),
        (Died("x"), Defer(1.0), STATE._replace(deaths=("x",))),
        (Unregistered(), Defer(1.0), STATE._replace(hand_backs=1)),
        (Limited(0.5), Defer(0.5), None),
    ],
)
def test_what_goes_back_leaves_no_record(outcome: Outcome, verdict: Verdict, state: State | None) -> None:
    back = settlement(delivery_of(STATE), outcome, verdict, {})
    assert (back.lease, back.verdict, back.record, back.state) == (LEASE, verdict, None, state)


def test_a_run_that_ends_clears_lapses() -> None:
    after = settlement(delivery_of(STATE), Failed(ERROR), Retry(0), {}).state
    assert after == STATE._replace(attempt=2, lapses=0)


def test_overrides_of_a_retry_travel_on() -> None:
    first = settlement(delivery_of(STATE), RetryAsked(ERROR, None, {"max_retries": 9}), Retry(0), {}).state
    assert first is not None
    then = settlement(delivery_of(first), RetryAsked(ERROR, None, {"stem.timeLimitMs": 5}), Retry(0), {}).state
    assert then is not None
    assert then.overrides == {"max_retries": 9, "stem.timeLimitMs": 5}
    assert delivery_of(then).max_retries == 9


def test_a_running_record_gives_way_to_the_end_of_its_own_run() -> None:
    delivery = delivery_of(STATE)
    running = running_record(delivery, {"progress": {"percent": 0.5}})
    assert (running.state, running.meta["progress"]) == (TaskState.RUNNING, {"percent": 0.5})
    assert running.precedence < record(Failed(ERROR), Retry(0)).precedence < record(Succeeded(None), Ack()).precedence
