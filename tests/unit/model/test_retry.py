from __future__ import annotations

import pytest

from stem_actors.errors import TaskDefinitionError
from stem_actors.model.delivery import State
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
from stem_actors.model.retry import DEFAULT_BACKOFF, Limits, RetryPolicy, decide
from tests.unit.model.values import delivery_of

ERROR = ErrorInfo("ValueError", "no such thing", "Traceback …")
NO_WAIT = RetryPolicy(jitter=False)
EXHAUSTED = DeadLetter("max-retries-exhausted", {"error": "ValueError: no such thing"})


def decided(outcome: Outcome, state: State | None = None, policy: RetryPolicy = NO_WAIT, chance: float = 0.0) -> Verdict:
    return decide(delivery_of(state), outcome, policy, Limits(max_deaths=3, max_hand_backs=4), chance)


@pytest.mark.parametrize("outcome", [Succeeded(None), Succeeded(b"\xc0"), Revoked(), Expired(), Recorded()])
def test_what_has_ended_is_acknowledged(outcome: Outcome) -> None:
    assert decided(outcome) == Ack()


@pytest.mark.parametrize("outcome", [Interrupted(), Lapsed("signal 9")])
@pytest.mark.parametrize("state", [State(), State(attempt=3, deaths=("x", "x"), lapses=9, hand_backs=9)])
def test_what_is_nobodys_fault_goes_back_at_once(outcome: Outcome, state: State) -> None:
    assert decided(outcome, state) == Release()


@pytest.mark.parametrize(("attempt", "verdict"), [(0, Retry(0.0)), (2, Retry(0.0)), (3, EXHAUSTED), (4, EXHAUSTED)])
def test_a_failure_is_retried_as_often_as_allowed(attempt: int, verdict: Verdict) -> None:
    assert decided(Failed(ERROR), State(attempt=attempt)) == verdict
    assert decided(RetryAsked(ERROR), State(attempt=attempt)) == verdict


def test_a_failure_that_the_policy_does_not_retry_is_final() -> None:
    assert decided(Failed(ERROR, retryable=False)) == EXHAUSTED


def test_a_replay_starts_a_new_budget_of_retries() -> None:
    replayed = State(attempt=3).replayed(1.0)
    assert decided(Failed(ERROR), replayed) == Retry(0.0)
    assert decided(Failed(ERROR), replayed._replace(attempt=5)) == Retry(0.0)
    assert decided(Failed(ERROR), replayed._replace(attempt=6)) == EXHAUSTED


def test_a_replay_starts_a_new_series_of_delays() -> None:
    replayed = State(attempt=7).replayed(1.0)
    assert decided(Failed(ERROR), replayed._replace(attempt=8), DEFAULT_BACKOFF) == Retry(4.0)


def test_a_retry_may_change_how_many_retries_there_are() -> None:
    state = State(attempt=5).retried({"max_retries": 8})
    assert decided(Failed(ERROR), state) == Retry(0.0)
    assert decided(Failed(ERROR), state.retried({"max_retries": 0})) == EXHAUSTED


@pytest.mark.parametrize(("asked", "delay"), [(5.0, 5.0), (5, 5), (0.0, 0.0), (-1.0, 0.0), (None, 2.0)])
def test_a_delay_that_was_asked_for_wins_over_the_policy(asked: float | None, delay: float) -> None:
    assert decided(RetryAsked(ERROR, asked), policy=DEFAULT_BACKOFF) == Retry(delay)


def test_deaths_end_as_poison() -> None:
    state = State()
    seen: list[Verdict] = []
    for cause in ("signal 9", "exit code 3", "signal 11"):
        seen.append(decided(Died(cause), state))
        state = state.died(cause)
    assert seen == [Release(), Defer(1.0), DeadLetter("poison", {"deaths": ["signal 9", "exit code 3", "signal 11"]})]


def test_deaths_do_not_use_up_retries_nor_retries_deaths() -> None:
    assert decided(Died("signal 9"), State(attempt=99)) == Release()
    assert decided(Failed(ERROR), State(deaths=("a", "b"))) == Retry(0.0)


def test_an_unknown_task_is_put_off_ever_longer_and_then_set_aside() -> None:
    verdicts = [decided(Unregistered(), State(hand_backs=n)) for n in range(5)]
    dead = DeadLetter("unregistered-task", {"task": "shop.mail"})
    assert verdicts == [Defer(1.0), Defer(2.0), Defer(4.0), dead, dead]
    patient = Limits(max_hand_backs=100_000)
    assert decide(delivery_of(State(hand_backs=99_000)), Unregistered(), NO_WAIT, patient, 0.0) == Defer(30.0)


def test_what_an_earlier_delivery_ended_is_settled_as_that_was() -> None:
    assert decided(Recorded("poison")) == DeadLetter("poison")


def test_what_cannot_run_is_set_aside_with_its_reason() -> None:
    assert decided(Rejected("too-large", ERROR)) == DeadLetter("too-large", {"error": "ValueError: no such thing"})


def test_the_default_delays_are_those_of_the_documentation() -> None:
    assert [DEFAULT_BACKOFF.delay(attempt, 0.0) for attempt in range(10)] == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    policy = RetryPolicy(backoff=True, default_delay=1.0, backoff_max=30.0, jitter=False)
    assert [policy.delay(attempt, 0.9) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_without_backoff_the_delay_stays() -> None:
    assert [RetryPolicy(default_delay=3.0, jitter=False).delay(attempt, 0.5) for attempt in (0, 9)] == [3.0, 3.0]


def test_backoff_from_no_delay_waits_the_longest() -> None:
    assert RetryPolicy(backoff=True, backoff_max=9.0, jitter=False).delay(0, 0.5) == 9.0


def test_the_type_lists_go_by_isinstance() -> None:
    policy = RetryPolicy(auto_retry_for=[OSError], dont_auto_retry_for=[FileNotFoundError])
    assert policy.allows(ConnectionResetError())
    assert not policy.allows(FileNotFoundError())
    assert not policy.allows(ValueError())
    assert RetryPolicy(dont_auto_retry_for=[ValueError]).allows(OSError())


@pytest.mark.parametrize("listed", ["ValueError", ValueError(), int])
def test_a_policy_that_lists_anything_but_exception_classes_is_refused(listed: object) -> None:
    with pytest.raises(TaskDefinitionError, match="exception classes"):
        RetryPolicy(auto_retry_for=[listed])  # type: ignore[list-item]  # that is the point
