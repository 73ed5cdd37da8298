"""Dead letters: set aside with a reason, listed, replayed, purged, and dropped when their time is over."""

from __future__ import annotations

import pytest

from stem_actors.model.delivery import State
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import DeadLetter
from stem_actors.model.record import Settlement
from stem_actors.ports import Broker, ResultBackend
from stem_actors.testing import ManualClock
from tests.contract.fabric import DEAD_LETTER_TTL, counts, ids, message, publish, record_of, settle, sweep_for, take, take_one


def bury(broker: Broker, clock: ManualClock, *task_ids: str) -> None:
    """Make them dead letters, a second apart."""
    for task_id in task_ids:
        publish(broker, task_id)
        settle(broker, take_one(broker), DeadLetter(f"reason of {task_id}"))
        clock.advance(1)


def test_a_dead_letter_is_listed_with_its_reason_facts_and_time(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    settle(
        broker, take_one(broker), DeadLetter("malformed", {"error": "bad", "codes": [1, 2]}), State(attempt=2, delivery_count=1)
    )
    (entry,) = broker.dead_letters("default").entries
    assert (entry.id, entry.queue, entry.body) == ("a", "default", b"body of a")
    assert (entry.reason, entry.meta, entry.dead_at) == ("malformed", {"error": "bad", "codes": [1, 2]}, clock.now())
    assert entry.state == State(attempt=2, delivery_count=1)
    assert broker.dead_letter("default", "a") == entry
    assert broker.dead_letter("default", "b") is None
    assert broker.dead_letter("other", "a") is None


def test_dead_letters_are_listed_newest_first_page_by_page(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, *"abcde")
    first = broker.dead_letters("default", limit=3)
    assert [entry.id for entry in first.entries] == ["e", "d", "c"]
    assert first.next_offset == 3
    second = broker.dead_letters("default", limit=3, offset=3)
    assert ([entry.id for entry in second.entries], second.next_offset) == (["b", "a"], None)
    assert broker.dead_letters("default", limit=5).next_offset is None
    assert broker.dead_letters("default", limit=0).entries == []


def test_dead_letters_can_be_listed_since_a_time(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a")
    since = clock.now()
    bury(broker, clock, "b", "c")
    assert [entry.id for entry in broker.dead_letters("default", since=since).entries] == ["c", "b"]


def test_a_dry_run_shows_what_a_replay_would_take_and_takes_nothing(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a", "b")
    assert [entry.id for entry in broker.replay_dead_letters("default", limit=1, dry_run=True)] == ["a"]
    assert counts(broker) == (0, 0, 0, 2)
    assert [entry.id for entry in broker.replay_dead_letters("default")] == ["a", "b"]
    assert counts(broker) == (2, 0, 0, 0)
    assert ids(take(broker)) == ["a", "b"]


def test_a_replay_keeps_the_attempts_and_starts_a_new_budget(broker: Broker, clock: ManualClock) -> None:
    publish(broker, "a")
    spent = State(attempt=3, delivery_count=4, deaths=("SIGSEGV",), lapses=1, hand_backs=2, overrides={"max_retries": 3})
    settle(broker, take_one(broker), DeadLetter("max-retries-exhausted"), spent)
    clock.advance(5)
    broker.replay_dead_letters("default")
    assert take_one(broker).state == spent.replayed(clock.now()).handed_out()


def test_a_delayed_replay_is_invisible_until_its_time(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a")
    broker.replay_dead_letters("default", delay=10)
    assert counts(broker) == (0, 0, 1, 0)
    clock.advance(5)
    assert take(broker) == []
    clock.advance(5.1)
    assert ids(take(broker)) == ["a"]


def test_one_sweep_tells_how_many_dead_letters_were_replayed(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a", "b", "c")
    publish(broker, message("d", queue="other"))
    broker.settle([Settlement(each.lease, DeadLetter("why")) for each in take(broker, queues=["other"])])
    broker.replay_dead_letters("default", dry_run=True)
    assert broker.sweep().replayed == {}
    broker.replay_dead_letters("default", limit=1)
    broker.replay_dead_letters("default", limit=1, delay=10)
    broker.replay_dead_letters("other")
    clock.advance(1)
    assert broker.sweep().replayed == {"default": 2, "other": 1}
    broker.replay_dead_letters("default")
    assert broker.sweep().replayed == {}, "this sweep is too early to do anything"
    clock.advance(1)
    assert broker.sweep().replayed == {"default": 1}


def test_a_replay_can_be_limited_to_ids_to_a_time_and_to_a_number(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a", "b")
    since = clock.now()
    bury(broker, clock, "c", "d", "e")
    assert [entry.id for entry in broker.replay_dead_letters("default", ids=["d", "nothing"])] == ["d"]
    assert [entry.id for entry in broker.replay_dead_letters("default", limit=1, since=since)] == ["c"]
    assert broker.replay_dead_letters("default", limit=0) == []
    assert broker.replay_dead_letters("other") == []
    assert ids(take(broker)) == ["d", "c"]


def test_a_replay_sets_the_record_back_to_queued_and_annotates_it(
    broker: Broker, results: ResultBackend, clock: ManualClock
) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    settle(
        broker, handout, DeadLetter("max-retries-exhausted"), record=record_of(handout, TaskState.FAILED, meta={"worker": "w"})
    )
    clock.advance(5)
    broker.replay_dead_letters("default", delay=2)
    record = results.get("a")
    assert record is not None
    assert (record.state, record.replay_count, record.error) == (TaskState.QUEUED, 1, None)
    assert record.meta == {
        "task": "a.task",
        "queue": "default",
        "worker": "w",
        "lastReplayAt": round(clock.now() * 1000),
        "replayCount": 1,
        "lastReplayReason": "max-retries-exhausted",
        "lastReplayDelayMs": 2000,
    }
    clock.advance(3)
    again = take_one(broker)
    settle(broker, again, record=record_of(again))
    record = results.get("a")
    assert record is not None
    assert record.state is TaskState.SUCCEEDED


def test_dead_letters_are_purged_newest_first_by_id_or_by_time(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a", "b")
    since = clock.now()
    bury(broker, clock, "c", "d", "e")
    assert broker.purge_dead_letters("default", limit=1) == 1
    assert broker.dead_letter("default", "e") is None
    assert broker.purge_dead_letters("default", ids=["a", "nothing"]) == 1
    assert broker.purge_dead_letters("default", since=since) == 2
    assert [entry.id for entry in broker.dead_letters("default").entries] == ["b"]
    assert broker.purge_dead_letters("default") == 1
    assert broker.purge_dead_letters("default") == 0


def test_dead_letters_past_their_retention_are_dropped_and_counted(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a")
    clock.advance(100)
    bury(broker, clock, "b")
    clock.advance(DEAD_LETTER_TTL - 100)
    assert broker.sweep().expired_dead_letters == 1
    assert [entry.id for entry in broker.dead_letters("default").entries] == ["b"]


def test_dead_letters_are_kept_apart_by_queue(broker: Broker) -> None:
    publish(broker, message("a", queue="one"), message("b", queue="two"))
    for queue in ("one", "two"):
        broker.settle([Settlement(each.lease, DeadLetter("why")) for each in take(broker, queues=[queue])])
    assert [entry.id for entry in broker.dead_letters("one").entries] == ["a"]
    assert broker.purge_dead_letters("two") == 1
    assert counts(broker, "one") == (0, 0, 0, 1)


def test_a_dead_letter_dies_again_after_a_replay(broker: Broker, clock: ManualClock) -> None:
    bury(broker, clock, "a")
    broker.replay_dead_letters("default")
    settle(broker, take_one(broker), DeadLetter("again"))
    (entry,) = broker.dead_letters("default").entries
    assert entry.reason == "again"
    assert entry.state is not None
    assert entry.state.replay_count == 1
    sweep_for(broker, clock, 60)
    assert counts(broker) == (0, 0, 0, 1)


@pytest.mark.parametrize("reason", ["", "a reason with ünïcode and 'quotes'"])
def test_any_text_is_a_reason(broker: Broker, reason: str) -> None:
    publish(broker, "a")
    settle(broker, take_one(broker), DeadLetter(reason))
    assert broker.dead_letters("default").entries[0].reason == reason
