"""Leases: who holds a delivery, for how long, and what becomes of it when it is settled or lost."""

from __future__ import annotations

import pytest

from stem_actors.model.delivery import State
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Broker, Done, Refused, ResultBackend, Stale
from stem_actors.testing import ManualClock
from tests.contract.fabric import (
    MAX_DEATHS,
    VISIBILITY,
    counts,
    depth,
    ids,
    let_lapse,
    message,
    publish,
    record_of,
    settle,
    sweep_for,
    take,
    take_one,
)

VERDICTS = [Ack(), Release(), Defer(5.0), Retry(0.0), Retry(5.0), DeadLetter("why", {"a": 1})]


def test_released_work_comes_back_first_and_uncharged(broker: Broker) -> None:
    publish(broker, "a", "b", "c", "d")
    a, b, c = take(broker, 3)
    broker.settle([Settlement(handout.lease, Release()) for handout in (c, a, b)])
    again = take(broker)
    assert ids(again) == ["a", "b", "c", "d"]
    assert again[0].state == State(delivery_count=2)


def test_deferred_work_comes_back_after_its_delay_uncharged(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    settle(broker, take_one(broker), Defer(10))
    assert counts(broker) == (0, 0, 1, 0)
    clock.advance(9)
    assert take(broker) == []
    clock.advance(1.1)
    assert take_one(broker).state == State(delivery_count=2)


def test_retried_work_comes_back_with_the_state_given(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a", "b")
    handout = take_one(broker)
    assert handout.state is not None
    settle(broker, handout, Retry(2), handout.state.retried({"max_retries": 7}))
    clock.advance(3)
    assert ids(take(broker, 1)) == ["b"], "it joins the tail"
    assert take_one(broker).state == State(attempt=1, delivery_count=2, overrides={"max_retries": 7})


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
def test_a_settlement_repeated_after_a_lost_answer_changes_nothing(broker: Broker, clock: ManualClock, verdict: Verdict) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    assert settle(broker, handout, verdict) == Done()
    before = counts(broker)
    assert settle(broker, handout, verdict) == Stale()
    assert counts(broker) == before


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
def test_a_holder_that_lost_its_lease_settles_nothing(
    broker: Broker, results: ResultBackend, clock: ManualClock, verdict: Verdict
) -> None:
    publish(broker, "a")
    lost = take_one(broker, "paused")
    let_lapse(broker, clock)
    held = take_one(broker, "other")
    assert settle(broker, lost, verdict, record=record_of(lost)) == Stale()
    assert results.get("a") is None, "no record from a stale holder"
    assert counts(broker) == (0, 1, 0, 0)
    assert settle(broker, held, record=record_of(held)) == Done()
    assert settle(broker, lost, verdict, record=record_of(lost, TaskState.FAILED)) == Stale()
    record = results.get("a")
    assert record is not None
    assert (record.state, record.delivery_count) == (TaskState.SUCCEEDED, 2)
    assert counts(broker) == (0, 0, 0, 0)


def test_a_holder_that_lost_its_lease_can_neither_extend_nor_mark_it(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    lost = take_one(broker, "paused")
    let_lapse(broker, clock)
    assert broker.extend([lost.lease]) == [Stale()], "the lease is gone, though nobody has taken the message yet"
    held = take_one(broker, "other")
    assert broker.extend([lost.lease, held.lease]) == [Stale(), Done()]
    assert broker.mark_started(lost.lease) == Stale()


def test_another_holder_cannot_use_a_token_that_is_not_its_own(broker: Broker) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    stolen = handout._replace(lease=handout.lease._replace(holder="thief"))
    assert settle(broker, stolen) == Stale()
    assert broker.extend([stolen.lease]) == [Stale()]
    assert broker.mark_started(stolen.lease) == Stale()
    assert settle(broker, handout) == Done()


def test_a_batch_is_answered_item_by_item_in_order(broker: Broker, clock: ManualClock) -> None:
    publish(broker, *"abcdef")
    handouts = take(broker)
    settle(broker, handouts[2])
    verdicts: list[Verdict] = [Ack(), Retry(0), Ack(), DeadLetter("why"), Release(), Defer(3)]
    answers = broker.settle([Settlement(each.lease, verdict) for each, verdict in zip(handouts, verdicts, strict=True)])
    assert answers == [Done(), Done(), Stale(), Done(), Done(), Done()]
    assert counts(broker) == (2, 0, 1, 1)
    assert ids(take(broker)) == ["e", "b"]


def test_a_lease_twice_in_one_batch_is_settled_once(broker: Broker) -> None:
    publish(broker, "a", "b")
    a, b = take(broker)
    pairs: list[tuple[Settlement, object]] = [
        (Settlement(a.lease, Release()), Done()),
        (Settlement(a.lease, Ack()), Stale()),
        (Settlement(b.lease, Ack()), Done()),
    ]
    assert broker.settle([settlement for settlement, _ in pairs]) == [answer for _, answer in pairs]
    assert ids(take(broker)) == ["a"]


def test_an_empty_batch_is_answered_with_an_empty_one(broker: Broker) -> None:
    assert broker.settle([]) == []
    assert broker.extend([]) == []
    publish(broker)


def test_one_item_that_the_store_refuses_does_not_hold_up_the_others(broker: Broker, results: ResultBackend) -> None:
    publish(broker, *(f"task-{number}" for number in range(64)))
    handouts = take(broker)
    settlements = [Settlement(each.lease, Ack(), None, record_of(each)) for each in handouts]
    bad = TaskRecord("task-16", TaskState.SUCCEEDED, 0, 1, meta={"not storable": object()})
    settlements[16] = Settlement(handouts[16].lease, Ack(), None, bad)
    answers = broker.settle(settlements)
    assert isinstance(answers.pop(16), Refused | Done), "memory stores any object"
    assert answers == [Done()] * 63
    assert results.get("task-63") is not None


def test_an_unsettled_delivery_comes_back_after_its_visibility_timeout(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    take_one(broker)
    assert sweep_for(broker, clock, VISIBILITY - 1) == 0
    assert take(broker) == []
    assert sweep_for(broker, clock, 2) == 1
    assert take_one(broker).state == State(delivery_count=2, lapses=1)


def test_a_message_with_its_own_visibility_timeout_comes_back_after_that(broker: Broker, clock: ManualClock) -> None:
    publish(broker, message("short", visibility_timeout=6), message("long", visibility_timeout=300), "default")
    assert {handout.id: handout.lease.visibility for handout in take(broker)} == {"short": 6, "long": 300, "default": VISIBILITY}
    assert sweep_for(broker, clock, 7) == 1
    assert ids(take(broker)) == ["short"]
    assert sweep_for(broker, clock, VISIBILITY) == 2
    assert sorted(ids(take(broker))) == ["default", "short"]
    assert sweep_for(broker, clock, 300) == 3


def test_a_lease_counts_from_before_the_request(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    assert take_one(broker).lease.deadline == clock.monotonic() + VISIBILITY


def test_an_extended_lease_lasts_a_full_visibility_timeout_from_then(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    sweep_for(broker, clock, VISIBILITY - 2)
    assert broker.extend([handout.lease]) == [Done()]
    assert sweep_for(broker, clock, VISIBILITY - 1) == 0
    assert sweep_for(broker, clock, 2) == 1


def test_a_renewed_lease_is_delivered_once_however_long_it_lasts(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    for _ in range(30):
        assert sweep_for(broker, clock, VISIBILITY / 3) == 0
        assert broker.extend([handout.lease]) == [Done()]
    assert take(broker) == []
    assert settle(broker, handout) == Done()


def test_a_late_holder_whom_nobody_replaced_still_extends_and_settles(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a", "b")
    a, b = take(broker)
    clock.advance(10 * VISIBILITY)
    assert broker.extend([a.lease]) == [Done()]
    assert settle(broker, b) == Done()


def test_after_an_outage_a_holder_that_renews_keeps_its_delivery(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "kept", "lost")
    sweep_for(broker, clock, VISIBILITY)
    kept, _ = take(broker)
    clock.advance(600)
    assert sweep_for(broker, clock, VISIBILITY / 3 - 1) == 0, "holders renew first"
    assert broker.extend([kept.lease]) == [Done()]
    assert sweep_for(broker, clock, 2) == 1
    assert ids(take(broker)) == ["lost"]


def test_a_clock_that_is_set_back_restarts_the_patience_and_sweeps_go_on(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    take_one(broker)
    sweep_for(broker, clock, 20)
    clock.set_now(clock.now() - 3600)
    assert not broker.sweep().skipped
    assert sweep_for(broker, clock, 3700) == 1


def test_reclaimed_work_comes_before_a_backlog(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "first", "second")
    take(broker)
    publish(broker, *(f"task-{number}" for number in range(2000)), message("urgent", priority=9))
    let_lapse(broker, clock)
    assert ids(take(broker, 4)) == ["urgent", "first", "second", "task-0"]


def test_held_lists_what_a_holder_holds_and_changes_nothing(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a", message("b", queue="other", visibility_timeout=60), "c")
    mine = take(broker, 1, "me") + take(broker, 1, "me", ["other"])
    take(broker, 1, "you")
    clock.advance(5)
    for _ in range(2):
        assert broker.held("me") == mine
    assert sweep_for(broker, clock, VISIBILITY - 6) == 0
    assert sweep_for(broker, clock, 2) == 2, "asking has prolonged nothing"
    assert broker.held("nobody") == []


def test_the_lapse_of_a_marked_delivery_is_a_death(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "marked", "unmarked")
    marked, _ = take(broker)
    assert broker.mark_started(marked.lease) == Done()
    let_lapse(broker, clock)
    again = {handout.id: handout.state for handout in take(broker)}
    assert again["marked"] == State(delivery_count=2, deaths=("lease lapsed",))
    assert again["unmarked"] == State(delivery_count=2, lapses=1)


def test_a_mark_holds_for_one_hand_out_only(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    broker.mark_started(take_one(broker).lease)
    let_lapse(broker, clock)
    take_one(broker)
    let_lapse(broker, clock)
    assert take_one(broker).state == State(delivery_count=3, deaths=("lease lapsed",), lapses=1)


def test_one_death_too_many_makes_a_dead_letter_and_a_failed_record(
    broker: Broker, results: ResultBackend, clock: ManualClock
) -> None:
    publish(broker, "a")
    for _ in range(MAX_DEATHS):
        handout = take_one(broker)
        results.set_many([record_of(handout, TaskState.RUNNING, meta={"worker": "w"})])
        broker.mark_started(handout.lease)
        let_lapse(broker, clock)
    assert counts(broker) == (0, 0, 0, 1)
    entry = broker.dead_letter("default", "a")
    assert entry is not None
    assert (entry.reason, entry.meta, entry.body) == ("poison", {"deaths": ["lease lapsed"] * MAX_DEATHS}, b"body of a")
    record = results.get("a")
    assert record is not None
    assert (record.state, record.delivery_count) == (TaskState.FAILED, MAX_DEATHS)
    assert record.error is not None
    assert record.error.type == "WorkerLost"
    assert (record.meta["task"], record.meta["worker"], record.meta["deadLetter"]) == ("a.task", "w", "poison")


def test_lapses_alone_never_make_a_dead_letter(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    for _ in range(MAX_DEATHS + 2):
        take_one(broker)
        let_lapse(broker, clock)
    assert take_one(broker).state == State(delivery_count=MAX_DEATHS + 3, lapses=1), "a later one counts where it was started"


def test_a_delivery_that_lapsed_before_is_marked_or_has_only_waited(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")

    def lapsed(is_marked: bool) -> State | None:
        handout = take_one(broker)
        if is_marked:
            assert broker.mark_started(handout.lease) == Done()
        let_lapse(broker, clock)
        (again,) = take(broker)
        settle(broker, again, Release())
        return again.state

    assert lapsed(is_marked=False) == State(delivery_count=2, lapses=1), "it may have run"
    assert lapsed(is_marked=False) == State(delivery_count=4, lapses=1), "it has waited"
    assert lapsed(is_marked=True) == State(delivery_count=6, lapses=2), "it ran, beside others"
    assert lapsed(is_marked=False) == State(delivery_count=8, lapses=2), "it waited for another suspect"
    assert lapsed(is_marked=True) == State(delivery_count=10, lapses=2, deaths=("lease lapsed",)), "it ran as a suspect"


def test_body_and_signature_are_the_same_bytes_through_everything(broker: Broker, clock: ManualClock) -> None:
    body = bytes(range(256)) * 40
    publish(broker, message("a", body=body, sig=b"\x00\xffsig", visibility_timeout=12))

    def handed_out() -> object:
        handout = take_one(broker)
        assert (handout.body, handout.sig, handout.lease.visibility) == (body, b"\x00\xffsig", 12)
        return handout

    for verdict in (Release(), Retry(0), Retry(1), Defer(1), DeadLetter("why")):
        handout = take_one(broker)
        assert (handout.body, handout.sig, handout.lease.visibility) == (body, b"\x00\xffsig", 12)
        settle(broker, handout, verdict)
        clock.advance(2)
    entry = broker.dead_letter("default", "a")
    assert entry is not None
    assert entry.body == body
    broker.replay_dead_letters("default")
    handed_out()
    let_lapse(broker, clock)
    handed_out()


def test_released_work_has_waited_since_it_was_published(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    clock.advance(5)
    settle(broker, take_one(broker), Release())
    assert depth(broker).oldest_age == pytest.approx(5)
    settle(broker, take_one(broker), Retry(0))
    assert depth(broker).oldest_age == pytest.approx(0)
