"""Publishing and receiving: what goes in comes out, once, in order, when it is due."""

from __future__ import annotations

import pytest

from stem_actors.errors import DuplicateTaskId
from stem_actors.model.delivery import State
from stem_actors.model.outcome import Ack, DeadLetter, Retry
from stem_actors.model.record import Settlement
from stem_actors.ports import Broker
from stem_actors.testing import ManualClock
from tests.contract.fabric import Fabric, counts, depth, ids, message, publish, settle, sweep_for, take, take_one


def test_a_published_message_is_delivered_and_gone_after_its_ack(broker: Broker) -> None:
    publish(broker, message("a", body=b"\x00\xffany bytes", sig=b"signature"))
    handout = take_one(broker)
    assert (handout.id, handout.body, handout.sig, handout.lease.queue) == ("a", b"\x00\xffany bytes", b"signature", "default")
    assert handout.state == State(delivery_count=1)
    settle(broker, handout)
    assert take(broker) == []
    assert counts(broker) == (0, 0, 0, 0)


def test_a_message_goes_to_the_queue_it_names(broker: Broker) -> None:
    publish(broker, message("a", queue="other"))
    assert take(broker) == []
    assert ids(take(broker, queues=["other"])) == ["a"]


def test_depths_follow_a_message_from_pending_to_inflight_to_nothing(broker: Broker) -> None:
    publish(broker, "a")
    assert counts(broker) == (1, 0, 0, 0)
    handout = take_one(broker)
    assert counts(broker) == (0, 1, 0, 0)
    settle(broker, handout)
    assert counts(broker) == (0, 0, 0, 0)


def test_depths_name_every_queue_that_holds_anything(broker: Broker) -> None:
    publish(broker, message("a", queue="ready"), message("b", queue="delayed", delay=10), message("c", queue="taken"))
    publish(broker, message("d", queue="dead"), message("e", queue="empty"))
    take(broker, queues=["taken"])
    settle(broker, take(broker, queues=["dead"])[0], DeadLetter("why"))
    settle(broker, take(broker, queues=["empty"])[0])
    assert [each.queue for each in broker.depths()] == ["dead", "delayed", "ready", "taken"]
    assert [each.queue for each in broker.depths(["nowhere", "ready"])] == ["nowhere", "ready"]


def test_the_oldest_age_is_that_of_the_message_waiting_longest(broker: Broker, clock: ManualClock) -> None:
    assert depth(broker).oldest_age is None
    publish(broker, "old")
    clock.advance(7)
    publish(broker, message("young", priority=9))
    assert depth(broker).oldest_age == pytest.approx(7)


def test_equal_priorities_are_delivered_in_the_order_of_publication(broker: Broker) -> None:
    names = [f"task-{number}" for number in range(50)]
    publish(broker, *names[:20])
    publish(broker, *names[20:])
    assert ids(take(broker, 30)) + ids(take(broker, 30)) == names


def test_the_highest_priority_is_delivered_first(broker: Broker) -> None:
    publish(broker, message("low", priority=1), message("beyond", priority=-3), message("middle", priority=5))
    publish(broker, message("high", priority=9), message("above", priority=12))
    assert ids(take(broker)) == ["high", "above", "middle", "low", "beyond"]


def test_low_priorities_do_not_starve(broker: Broker) -> None:
    publish(broker, message("low", priority=0))
    intake = broker.open_intake(["default"], "holder-1")
    fetched = []
    for number in range(12):
        publish(broker, message(f"high-{number}", priority=9))
        fetched += ids(take(intake, 1))
    assert "low" in fetched
    assert len(fetched) == 12


def test_a_fetch_takes_no_more_than_its_limit(broker: Broker) -> None:
    publish(broker, *(f"task-{number}" for number in range(10)))
    assert len(take(broker, 3)) == 3
    assert take(broker, 0) == []
    assert counts(broker) == (7, 3, 0, 0)


def test_queues_of_one_intake_share_each_fetch(broker: Broker) -> None:
    publish(broker, *(message(f"a{number}", queue="a") for number in range(100)))
    publish(broker, *(message(f"b{number}", queue="b") for number in range(3)))
    intake = broker.open_intake(["a", "b", "empty"], "holder-1")
    first = ids(take(intake, 4))
    assert sorted(first) == ["a0", "a1", "b0", "b1"]
    assert len(take(intake, 20)) == 20, "what one queue cannot use goes to another"


def test_queues_of_one_intake_take_turns_when_there_is_room_for_one(broker: Broker) -> None:
    publish(broker, *(message(f"{queue}{number}", queue=queue) for queue in "abc" for number in range(2)))
    intake = broker.open_intake(["a", "b", "c"], "holder-1")
    assert {ids(take(intake, 1))[0][0] for _ in range(3)} == {"a", "b", "c"}


def test_delivery_count_grows_with_every_hand_out(broker: Broker) -> None:
    publish(broker, "a")
    for expected in (1, 2, 3):
        handout = take_one(broker)
        assert handout.state is not None
        assert handout.state.delivery_count == expected
        settle(broker, handout, Retry(0))


def test_a_delayed_message_is_not_pending_and_delivered_when_due(broker: Broker, clock: ManualClock) -> None:
    publish(broker, message("a", delay=10))
    assert counts(broker) == (0, 0, 1, 0)
    clock.advance(9.9)
    assert take(broker) == []
    clock.advance(0.2)
    assert ids(take(broker)) == ["a"]


def test_delayed_messages_join_in_the_order_in_which_they_fall_due(broker: Broker, clock: ManualClock) -> None:
    publish(
        broker, message("third", delay=3), message("first", delay=1), message("second", delay=2), message("also second", delay=2)
    )
    clock.advance(5)
    assert ids(take(broker)) == ["first", "second", "also second", "third"]


def test_a_sweep_promotes_what_is_due_and_tells_when_to_come_back(broker: Broker, clock: ManualClock) -> None:
    publish(broker, message("a", delay=1), message("b", delay=6))
    assert broker.sweep().next_due == pytest.approx(1)
    clock.advance(2)
    swept = broker.sweep()
    assert swept.promoted == 1
    assert swept.next_due == pytest.approx(4)
    assert counts(broker) == (1, 0, 1, 0)
    assert broker.sweep().skipped


def test_a_repeated_publication_adds_nothing(broker: Broker) -> None:
    broker.publish("sender", 1, [message("a")])
    broker.publish("sender", 1, [message("a")])
    assert ids(take(broker)) == ["a"]
    broker.publish("sender", 2, [message("b")])
    assert ids(take(broker)) == ["b"]


def test_a_repeated_publication_adds_nothing_after_its_task_has_run(broker: Broker, clock: ManualClock) -> None:
    broker.publish("sender", 1, [message("a")])
    settle(broker, take_one(broker))
    sweep_for(broker, clock, 590)
    broker.publish("sender", 1, [message("a")])
    assert take(broker) == []


def test_senders_are_forgotten_after_ten_minutes(broker: Broker, clock: ManualClock, fabric: Fabric) -> None:
    publish(broker, "a")
    settle(broker, take_one(broker))
    before = fabric.count_entries()
    sweep_for(broker, clock, 640)
    assert fabric.count_entries() < before


def test_a_chosen_id_is_refused_while_its_task_is_pending(broker: Broker) -> None:
    publish(broker, message("mine", is_chosen_id=True, delay=5))
    with pytest.raises(DuplicateTaskId, match="mine"):
        publish(broker, "other", message("mine", is_chosen_id=True))
    assert counts(broker) == (0, 0, 1, 0), "a refused publication stores nothing"


def test_a_chosen_id_is_refused_while_its_task_runs_and_an_hour_after_its_end(broker: Broker, clock: ManualClock) -> None:
    publish(broker, message("mine", is_chosen_id=True))
    handout = take_one(broker)
    with pytest.raises(DuplicateTaskId):
        publish(broker, message("mine", is_chosen_id=True))
    settle(broker, handout)
    clock.advance(3500)
    broker.sweep()
    with pytest.raises(DuplicateTaskId):
        publish(broker, message("mine", is_chosen_id=True))
    clock.advance(200)
    publish(broker, message("mine", is_chosen_id=True))
    assert ids(take(broker)) == ["mine"]


def test_a_chosen_id_twice_in_one_batch_is_refused(broker: Broker) -> None:
    with pytest.raises(DuplicateTaskId):
        publish(broker, message("mine", is_chosen_id=True), message("mine", is_chosen_id=True))
    assert take(broker) == []


def test_a_dead_letter_keeps_its_chosen_id_and_a_purge_frees_it(broker: Broker) -> None:
    publish(broker, message("mine", is_chosen_id=True))
    settle(broker, take_one(broker), DeadLetter("why"))
    with pytest.raises(DuplicateTaskId):
        publish(broker, message("mine", is_chosen_id=True))
    publish(broker, message("other", is_chosen_id=True))
    broker.purge("default")
    publish(broker, message("other", is_chosen_id=True))


def test_purge_removes_what_waits_and_leaves_what_is_in_flight(broker: Broker) -> None:
    publish(broker, "taken")
    handout = take_one(broker)
    publish(broker, "a", "b", message("later", delay=9), message("elsewhere", queue="other"))
    assert broker.purge("default") == 3
    assert counts(broker) == (0, 1, 0, 0)
    assert counts(broker, "other") == (1, 0, 0, 0)
    settle(broker, handout, DeadLetter("why"))
    assert broker.purge("default") == 0
    assert broker.purge("default", dead_letters=True) == 1
    assert counts(broker) == (0, 0, 0, 0)


def test_two_namespaces_see_nothing_of_each_other(fabric: Fabric, clock: ManualClock) -> None:
    one, other = fabric.open("one").broker, fabric.open("other").broker
    publish(one, message("same", is_chosen_id=True), message("late", delay=1))
    publish(other, message("same", is_chosen_id=True, body=b"other"))
    handout = take_one(one)
    assert handout.body == b"body of same"
    assert other.held("holder-1") == []
    assert counts(other) == (1, 0, 0, 0)
    assert sweep_for(other, clock, 60) == 0, "its sweep takes no lease of another namespace"
    assert counts(one) == (0, 1, 1, 0)
    settle(one, handout, DeadLetter("why"))
    assert other.dead_letters("default").entries == []
    assert other.purge("default", dead_letters=True) == 1
    assert counts(one) == (0, 0, 1, 1)


def test_settled_messages_leave_nothing_behind(broker: Broker, fabric: Fabric) -> None:
    sizes = []
    for tasks in (1_000, 10_000):
        publish(broker, *(f"{tasks}-{number}" for number in range(tasks)), sender="the same")
        while handouts := take(broker, 1000):
            broker.settle([Settlement(handout.lease, Ack()) for handout in handouts])
        sizes.append(fabric.count_entries())
    assert sizes[0] == sizes[1]


def test_an_unreadable_state_is_handed_out_as_none_and_can_be_dead_lettered(broker: Broker, fabric: Fabric) -> None:
    publish(broker, "bad", "good")
    fabric.spoil_state("bad")
    bad, good = take(broker)
    assert (bad.state, bad.body, good.state) == (None, b"body of bad", State(delivery_count=1))
    settle(broker, bad, DeadLetter("malformed"))
    (entry,) = broker.dead_letters("default").entries
    assert (entry.id, entry.state, entry.reason) == ("bad", None, "malformed")
    assert ids([good]) == ["good"]


def test_an_unreadable_state_survives_a_lapse_and_a_replay(broker: Broker, fabric: Fabric, clock: ManualClock) -> None:
    publish(broker, "bad")
    fabric.spoil_state("bad")
    take_one(broker)
    assert sweep_for(broker, clock, 40) == 1
    handout = take_one(broker)
    assert handout.state is None
    settle(broker, handout, DeadLetter("malformed"))
    assert len(broker.replay_dead_letters("default")) == 1
    assert take_one(broker).body == b"body of bad"
