"""Claims of unique tasks: taken in the step that stores the message, given back in the step that ends it, whatever that is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from stem_actors.errors import DuplicateTaskId
from stem_actors.model.delivery import Handout, State
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import DUPLICATES_KEPT, Claim
from stem_actors.ports import Broker, Done, Message, Stale
from stem_actors.testing import ManualClock
from tests.contract.fabric import MAX_DEATHS, Fabric, counts, ids, let_lapse, message, publish, settle, take, take_one
from tests.fixtures.waiting import until

KEY = "digest:42"
_numbers = count(1)


def unique(task_id: str, key: str = KEY, replaces: bool = False, lasts: float | None = None, **fields: Any) -> Message:
    return message(task_id, claim=Claim(key, replaces, lasts), **fields)


def say(broker: Broker, *messages: Message) -> Mapping[str, str]:
    """Publish, as a sender of its own."""
    return broker.publish(f"unique-{next(_numbers)}", 1, messages)


def owner(broker: Broker, key: str = KEY) -> str | None:
    held = broker.claims(key)
    return held[0].owner if held else None


# ---------------------------------------------------------------- taken


def test_a_second_task_with_the_key_is_not_stored_and_comes_to_the_first(broker: Broker) -> None:
    assert say(broker, unique("first")) == {}
    assert say(broker, unique("second")) == {"second": "first"}
    assert ids(take(broker)) == ["first"]
    assert owner(broker) == "first"


def test_other_keys_and_other_queues_are_none_of_its_business(broker: Broker) -> None:
    assert say(broker, unique("a"), unique("b", key="other"), unique("c", queue="mail"), message("d")) == {}
    assert sorted(ids(take(broker, queues=("default", "mail")))) == ["a", "b", "c", "d"]
    assert [(held.queue, held.owner) for held in broker.claims(KEY)] == [("default", "a"), ("mail", "c")]
    assert [held.owner for held in broker.claims(KEY, "mail")] == ["c"]


@pytest.mark.parametrize("key", ["ü ", "a:b", "{a}", "*", "x" * 512, "'; DROP"])
def test_any_line_of_text_is_a_key(broker: Broker, key: str) -> None:
    assert say(broker, unique("first", key), unique("second", key)) == {"second": "first"}
    settle(broker, take_one(broker))
    assert say(broker, unique("third", key)) == {}


def test_of_one_batch_the_first_gets_the_key_and_all_else_is_stored(broker: Broker) -> None:
    batch = [message("a"), unique("b"), message("c"), unique("d"), unique("e", delay=5.0), message("f", priority=9)]
    assert say(broker, *batch) == {"d": "b", "e": "b"}
    assert sorted(ids(take(broker))) == ["a", "b", "c", "f"]


def test_two_namespaces_have_keys_of_their_own(fabric: Fabric) -> None:
    one, other = fabric.open("one").broker, fabric.open("other").broker
    assert say(one, unique("first")) == say(other, unique("second")) == {}


def test_a_publication_repeated_after_a_lost_answer_adds_nothing_and_says_the_same(broker: Broker) -> None:
    say(broker, unique("first"))
    batch = [unique("second"), message("plain"), unique("third", key="free")]
    assert broker.publish("sender", 1, batch) == {"second": "first"}
    settle(broker, take_one(broker))  # the first: its key is free by now
    assert broker.publish("sender", 1, batch) == {"second": "first"}
    assert ids(take(broker)) == ["plain", "third"]
    assert broker.publish("sender", 2, [unique("fourth")]) == {}
    assert broker.publish("sender", 2, [unique("fourth")]) == {}
    assert ids(take(broker)) == ["fourth"]


def test_a_task_that_is_kept_out_does_not_take_its_chosen_id(broker: Broker) -> None:
    say(broker, unique("first"))
    assert say(broker, unique("mine", is_chosen_id=True)) == {"mine": "first"}
    assert say(broker, message("mine", is_chosen_id=True)) == {}


def test_the_same_id_again_comes_to_itself(broker: Broker) -> None:
    assert say(broker, unique("mine", is_chosen_id=True)) == {}
    assert say(broker, unique("mine", is_chosen_id=True)) == {"mine": "mine"}
    assert say(broker, unique("mine", is_chosen_id=True, replaces=True)) == {"mine": "mine"}
    assert ids(take(broker)) == ["mine"]


def test_a_batch_that_is_refused_for_an_id_claims_nothing(broker: Broker) -> None:
    publish(broker, message("taken", is_chosen_id=True))
    with pytest.raises(DuplicateTaskId):
        say(broker, unique("a"), message("taken", is_chosen_id=True))
    assert broker.claims(KEY) == []
    assert say(broker, unique("b")) == {}


# ---------------------------------------------------------------- replaced


def test_one_that_replaces_is_stored_and_has_the_key_from_then_on(broker: Broker) -> None:
    say(broker, unique("first"))
    assert say(broker, unique("second", replaces=True)) == {"second": "first"}
    assert owner(broker) == "second"
    first, second = take(broker)
    settle(broker, first)
    assert owner(broker) == "second", "it is not the first one's any more"
    settle(broker, second)
    assert owner(broker) is None


# ---------------------------------------------------------------- given back


@pytest.mark.parametrize("verdict", [Ack(), DeadLetter("max-retries-exhausted", {})], ids=["acked", "dead"])
@pytest.mark.parametrize("is_chosen", [False, True], ids=["own-id", "chosen-id"])
def test_the_key_is_free_when_its_task_has_ended(broker: Broker, verdict: Verdict, is_chosen: bool) -> None:
    say(broker, unique("first", is_chosen_id=is_chosen))
    publish(broker, "plain")
    first, plain = take(broker)
    settle(broker, plain)
    assert say(broker, unique("second")) == {"second": "first"}
    settle(broker, first, verdict)
    assert say(broker, unique("third")) == {}
    assert ids(take(broker)) == ["third"]
    if is_chosen:
        with pytest.raises(DuplicateTaskId):
            publish(broker, message("first", is_chosen_id=True))


@pytest.mark.parametrize(
    "verdict", [Release(), Defer(5.0), Retry(5.0), Retry(0.0)], ids=["released", "put-off", "retry", "at-once"]
)
def test_a_task_that_goes_on_keeps_its_key(broker: Broker, clock: ManualClock, verdict: Verdict) -> None:
    say(broker, unique("first"))
    settle(broker, take_one(broker), verdict, State(attempt=1))
    assert say(broker, unique("second")) == {"second": "first"}
    clock.advance(6)
    settle(broker, take_one(broker))
    assert say(broker, unique("third")) == {}


def test_the_key_outlasts_any_time_that_its_task_waits_or_runs(broker: Broker, clock: ManualClock) -> None:
    say(broker, unique("first", delay=10 * 86400.0))
    clock.advance(10 * 86400.0)
    assert say(broker, unique("second")) == {"second": "first"}
    let_lapse(broker, clock)
    handout = take_one(broker)
    let_lapse(broker, clock)
    assert say(broker, unique("third")) == {"third": "first"}
    assert isinstance(settle(broker, handout), Stale)
    assert owner(broker) == "first", "whose lease is lost ends nothing"
    settle(broker, take_one(broker))
    assert owner(broker) is None


def test_a_poisonous_task_gives_its_key_back(broker: Broker, clock: ManualClock) -> None:
    say(broker, unique("first"))
    for _ in range(MAX_DEATHS):
        assert isinstance(broker.mark_started(take_one(broker).lease), Done)
        let_lapse(broker, clock)
    assert counts(broker) == (0, 0, 0, 1)
    assert say(broker, unique("second")) == {}


def test_a_purge_frees_what_it_removes_and_nothing_else(broker: Broker) -> None:
    say(broker, unique("held", "a"))
    take_one(broker)
    say(broker, unique("ready", "b"), unique("late", "c", delay=50.0), unique("named", "d", is_chosen_id=True))
    assert broker.purge("default") == 3
    assert [owner(broker, key) for key in "abcd"] == ["held", None, None, None]
    assert say(broker, unique("named", "d", is_chosen_id=True)) == {}


def test_a_settlement_in_one_batch_with_others_frees_its_own_key_only(broker: Broker) -> None:
    say(broker, *(unique(f"t{number}", f"key-{number}") for number in range(8)), *(message(f"p{number}") for number in range(8)))
    handouts = take(broker)
    broker.settle([Settlement(each.lease, Ack()) for each in handouts if each.id not in ("t3", "t5")])
    assert [owner(broker, f"key-{number}") is not None for number in range(8)] == [number in (3, 5) for number in range(8)]


def test_a_claim_until_the_start_ends_with_it(broker: Broker) -> None:
    say(broker, unique("first"))
    first = take_one(broker)
    (answer,) = broker.end_claims([first.lease])
    assert isinstance(answer, Done)
    assert say(broker, unique("second")) == {}
    settle(broker, first)
    assert owner(broker) == "second"


def test_whose_lease_is_lost_starts_nothing_and_ends_nothing(broker: Broker, clock: ManualClock) -> None:
    say(broker, unique("first"))
    lost = take_one(broker)
    let_lapse(broker, clock)
    held = take_one(broker, holder="another")
    answers = broker.end_claims([lost.lease])
    assert [type(answer) for answer in answers] == [Stale]
    assert owner(broker) == "first"
    assert [type(answer) for answer in broker.end_claims([held.lease, lost.lease])] == [Done, Stale]
    assert owner(broker) is None


# ---------------------------------------------------------------- for a fixed time


def test_a_window_lasts_as_long_as_it_says_whatever_becomes_of_the_task(broker: Broker, clock: ManualClock) -> None:
    say(broker, unique("first", lasts=900.0))
    settle(broker, take_one(broker))
    clock.advance(899)
    assert say(broker, unique("second", lasts=900.0)) == {"second": "first"}
    clock.advance(2)
    assert broker.claims(KEY) == []
    assert say(broker, unique("third", lasts=900.0)) == {}
    assert ids(take(broker)) == ["third"]


def test_windows_that_are_over_leave_nothing_behind(fabric: Fabric, broker: Broker, clock: ManualClock) -> None:
    numbers = count(1)

    def run(key: str) -> None:
        broker.publish("sender", next(numbers), [unique(f"task-{key}", key, lasts=0.05)])
        settle(broker, take_one(broker))
        clock.advance(1)

    run("first")
    before = fabric.count_entries()
    for number in range(20):
        run(f"key-{number}")
    broker.sweep()
    until(lambda: fabric.count_entries() <= before)  # a server of its own forgets by its own clock


# ---------------------------------------------------------------- seen and freed


def test_the_last_duplicates_are_kept_and_all_are_counted(broker: Broker, clock: ManualClock) -> None:
    started = clock.now()
    say(broker, unique("first"))
    for number in range(DUPLICATES_KEPT + 5):
        clock.advance(1)
        say(broker, unique(f"late-{number}"))
    (held,) = broker.claims(KEY)
    assert (held.queue, held.key, held.owner, held.ends_at) == ("default", KEY, "first", None)
    assert held.claimed_at == pytest.approx(started, abs=0.002)
    assert held.refusals == DUPLICATES_KEPT + 5
    assert [each.id for each in held.duplicates] == [f"late-{number}" for number in range(5, DUPLICATES_KEPT + 5)]
    last = held.duplicates[-1]
    assert last.id == f"late-{DUPLICATES_KEPT + 4}"
    assert last.at == pytest.approx(clock.now(), abs=0.002)


def test_an_operator_frees_a_key_once(broker: Broker) -> None:
    assert not broker.free_claim("default", KEY)
    say(broker, unique("first"))
    assert not broker.free_claim("mail", KEY)
    assert broker.free_claim("default", KEY)
    assert not broker.free_claim("default", KEY)
    assert say(broker, unique("second")) == {}
    first: Handout = take(broker)[0]
    settle(broker, first)
    assert owner(broker) == "second"


def test_a_replayed_dead_letter_is_queued_beside_whoever_has_its_key_by_now(broker: Broker) -> None:
    say(broker, unique("first"))
    settle(broker, take_one(broker), DeadLetter("max-retries-exhausted", {}))
    say(broker, unique("second"))
    assert [letter.id for letter in broker.replay_dead_letters("default")] == ["first"]
    handouts = {handout.id: handout for handout in take(broker)}
    settle(broker, handouts["first"])
    assert owner(broker) == "second"
    settle(broker, handouts["second"])
    assert owner(broker) is None
