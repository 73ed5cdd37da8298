"""Whatever became of a delivery, there is a verdict, and it keeps the promises about delays, retries and blame."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
)
from stem_actors.model.record import settlement
from stem_actors.model.retry import DEFAULT_BACKOFF, Limits, RetryPolicy, decide
from tests.unit.model.values import delivery_of

texts = st.text(max_size=8)
counts = st.integers(0, 12) | st.integers(0, 2**53)
errors = st.builds(ErrorInfo, texts, texts)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, st.none() | st.binary(max_size=4)),
    st.builds(Failed, errors, st.booleans()),
    st.builds(RetryAsked, errors, st.none() | st.floats(-10, 10), st.dictionaries(st.just("max_retries"), counts)),
    st.just(Interrupted()),
    st.builds(Died, texts),
    st.builds(Lapsed, texts),
    st.builds(Revoked, st.none() | texts),
    st.just(Expired()),
    st.just(Unregistered()),
    st.builds(Limited, st.none() | st.floats(-1, 1e6)),
    st.builds(Recorded, st.none() | texts),
    st.builds(Rejected, texts, errors),
)
states = st.builds(
    State,
    attempt=counts,
    delivery_count=counts,
    deaths=st.lists(texts, max_size=7).map(tuple),
    lapses=counts,
    replayed_at_attempt=counts,
    hand_backs=counts,
    overrides=st.dictionaries(st.just("max_retries"), counts),
)
policies = st.builds(
    RetryPolicy, st.booleans(), st.none() | st.floats(0, 1e6), st.booleans(), st.floats(0, 1e6), max_retries=st.none() | counts
)
chances = st.floats(0, 1, exclude_max=True)
LIMITS = Limits(max_deaths=5, max_hand_backs=10)


@given(outcomes, states, policies, chances)
def test_every_outcome_has_a_verdict_and_a_settlement_that_fits(
    outcome: Outcome, state: State, policy: RetryPolicy, chance: float
) -> None:
    delivery = delivery_of(state)
    verdict = decide(delivery, outcome, policy, LIMITS, chance)
    after = settlement(delivery, outcome, verdict, {}).state or state
    match verdict:
        case Ack():
            assert isinstance(outcome, Succeeded | Revoked | Expired | Recorded)
        case Retry(delay):
            assert delay >= 0
            assert delivery.retries_left > 0
            assert (after.attempt, after.lapses) == (state.attempt + 1, 0)
        case Release() | Defer():
            assert isinstance(outcome, Interrupted | Lapsed | Died | Unregistered | Limited)
            assert after.attempt == state.attempt
        case DeadLetter(reason):
            assert reason or isinstance(outcome, Rejected | Recorded)
    assert len(after.deaths) - len(state.deaths) == isinstance(outcome, Died)
    assert after.lapses == (state.lapses + 1 if isinstance(outcome, Lapsed) else after.lapses)


@given(states, chances)
def test_a_default_delay_lies_in_the_last_quarter_below_its_bound(state: State, chance: float) -> None:
    verdict = decide(delivery_of(state._replace(overrides={})), Failed(ErrorInfo("E", "")), DEFAULT_BACKOFF, LIMITS, chance)
    if isinstance(verdict, Retry):
        bound = DEFAULT_BACKOFF.delay(state.attempt - state.replayed_at_attempt, 0.0)
        assert 0.75 * bound <= verdict.delay <= bound <= 300


@given(st.integers(0, 2**63), policies, chances)
def test_no_attempt_is_too_large_for_a_delay(attempt: int, policy: RetryPolicy, chance: float) -> None:
    delay = policy.delay(attempt, chance)
    bound = policy.delay(attempt, 0.0)
    assert 0.75 * bound <= delay * 1.000001
    assert delay <= bound
    if policy.backoff and policy.backoff_max is not None:
        assert bound <= policy.backoff_max


@given(states, st.lists(outcomes, max_size=30))
def test_a_task_that_never_succeeds_ends_after_a_bounded_number_of_charges(state: State, story: list[Outcome]) -> None:
    """Only retries, deaths and hand-backs use up anything, and each has its bound."""
    charges = 0
    state = State(overrides={"max_retries": 3})
    for outcome in story:
        if isinstance(outcome, RetryAsked):
            outcome = RetryAsked(outcome.error, outcome.delay)
        verdict = decide(delivery_of(state), outcome, DEFAULT_BACKOFF, LIMITS, 0.5)
        if isinstance(verdict, Ack | DeadLetter):
            return
        charges += isinstance(outcome, Failed | RetryAsked | Died | Unregistered)
        state = settlement(delivery_of(state), outcome, verdict, {}).state or state
    assert charges <= 3 + 4 + 9
