"""Task records: who may overwrite whom, how long they live, and how waiters hear of them."""

from __future__ import annotations

import pytest

from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import ErrorInfo, Release
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Broker, ResultBackend
from stem_actors.testing import ManualClock
from tests.contract.fabric import PROMPTLY, RESULT_TTL, Fabric, meanwhile, publish, record_of, results_of, settle, take_one

LONG = 30.0


def test_a_record_is_read_as_it_was_written(results: ResultBackend, clock: ManualClock) -> None:
    error = ErrorInfo("ValueError", "no", "Traceback …", {"code": 3})
    meta = {"queue": "q", "task": "t", "number": 1.5, "nothing": None, "list": [1, "a"], "map": {"a": True}}
    record = TaskRecord("a", TaskState.RETRIED, 2, 3, 1, b"\x00payload\xff", error, True, meta)
    assert results.set_many([record]) == [True]
    found = results.get("a")
    assert found is not None
    assert found == TaskRecord("a", TaskState.RETRIED, 2, 3, 1, b"\x00payload\xff", error, True, meta, clock.now(), clock.now())
    assert results.get("b") is None


@pytest.mark.parametrize(
    ("before", "after", "is_stored"),
    [
        (TaskRecord("a", TaskState.RUNNING, 0, 1), TaskRecord("a", TaskState.SUCCEEDED, 0, 1), True),
        (TaskRecord("a", TaskState.SUCCEEDED, 0, 1), TaskRecord("a", TaskState.RUNNING, 0, 1), False),
        (TaskRecord("a", TaskState.SUCCEEDED, 0, 1), TaskRecord("a", TaskState.RUNNING, 0, 2), True),
        (TaskRecord("a", TaskState.SUCCEEDED, 0, 2), TaskRecord("a", TaskState.FAILED, 0, 1), False),
        (TaskRecord("a", TaskState.RETRIED, 0, 5), TaskRecord("a", TaskState.RUNNING, 1, 1), True),
        (TaskRecord("a", TaskState.RUNNING, 1, 1), TaskRecord("a", TaskState.RETRIED, 0, 5), False),
        (TaskRecord("a", TaskState.FAILED, 3, 9), TaskRecord("a", TaskState.QUEUED, 0, 0, 1), True),
        (TaskRecord("a", TaskState.QUEUED, 0, 0, 1), TaskRecord("a", TaskState.FAILED, 3, 9), False),
        (TaskRecord("a", TaskState.SUCCEEDED, 0, 1), TaskRecord("a", TaskState.FAILED, 0, 1), True),
    ],
)
def test_a_record_gives_way_only_to_one_of_at_least_its_precedence(
    results: ResultBackend, before: TaskRecord, after: TaskRecord, is_stored: bool
) -> None:
    assert results.set_many([before, after]) == [True, is_stored]
    found = results.get("a")
    assert found is not None
    assert found.precedence == (after if is_stored else before).precedence


def test_a_later_write_clears_the_error_and_keeps_the_time_of_creation(results: ResultBackend, clock: ManualClock) -> None:
    created_at = clock.now()
    results.set_many([TaskRecord("a", TaskState.RETRIED, 0, 1, error=ErrorInfo("E", "no"), retryable=True)])
    clock.advance(10)
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 1, 2)])
    found = results.get("a")
    assert found is not None
    assert (found.error, found.retryable, found.created_at, found.updated_at) == (None, False, created_at, clock.now())


def test_a_record_expires_and_every_write_gives_it_a_new_time_to_live(results: ResultBackend, clock: ManualClock) -> None:
    results.set_many([TaskRecord("a", TaskState.RUNNING, 0, 1)])
    clock.advance(RESULT_TTL - 1)
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 0, 1)])
    clock.advance(RESULT_TTL - 1)
    assert results.get("a") is not None
    clock.advance(2)
    assert results.get("a") is None
    assert results.wait(["a"], 0) == {}
    assert results.list_records().items == []


def test_an_expired_record_refuses_nothing_and_starts_anew(results: ResultBackend, clock: ManualClock) -> None:
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 5, 5)])
    clock.advance(RESULT_TTL + 1)
    assert results.set_many([TaskRecord("a", TaskState.RUNNING, 0, 1)]) == [True]
    found = results.get("a")
    assert found is not None
    assert (found.attempt, found.created_at) == (0, clock.now())


def test_expired_records_are_purged_and_counted(results: ResultBackend, clock: ManualClock) -> None:
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED), TaskRecord("b", TaskState.SUCCEEDED)])
    clock.advance(RESULT_TTL / 2)
    results.set_many([TaskRecord("b", TaskState.SUCCEEDED), TaskRecord("c", TaskState.SUCCEEDED)])
    clock.advance(RESULT_TTL / 2 + 1)
    assert results.purge_expired() == 1
    assert results.purge_expired() == 0
    assert {record.id for record in results.list_records().items} == {"b", "c"}


def test_records_are_listed_newest_first_by_state_and_queue_page_by_page(results: ResultBackend, clock: ManualClock) -> None:
    for number in range(6):
        state = TaskState.FAILED if number % 2 else TaskState.SUCCEEDED
        results.set_many([TaskRecord(f"{number}", state, meta={"queue": "low" if number < 2 else "high"})])
        clock.advance(1)
    assert [record.id for record in results.list_records().items] == ["5", "4", "3", "2", "1", "0"]
    assert [record.id for record in results.list_records(state=TaskState.FAILED).items] == ["5", "3", "1"]
    assert [record.id for record in results.list_records(queue="low", state=TaskState.FAILED).items] == ["1"]
    page = results.list_records(limit=4)
    assert page.next_offset == 4
    page = results.list_records(limit=4, offset=4)
    assert ([record.id for record in page.items], page.next_offset) == (["1", "0"], None)
    assert results.list_records(limit=0).items == []


def test_two_namespaces_keep_their_own_records(fabric: Fabric) -> None:
    one, other = results_of(fabric.open("one")), results_of(fabric.open("other"))
    one.set_many([TaskRecord("a", TaskState.SUCCEEDED, 7)])
    assert other.get("a") is None
    assert other.set_many([TaskRecord("a", TaskState.RUNNING)]) == [True]
    found = one.get("a")
    assert found is not None
    assert found.attempt == 7


def test_waiting_returns_at_once_what_is_final_already(results: ResultBackend) -> None:
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED), TaskRecord("b", TaskState.CANCELLED)])
    assert set(results.wait(["a", "b", "a"], LONG)) == {"a", "b"}
    assert results.wait([], LONG) == {}


def test_waiting_ends_when_the_last_record_becomes_final(fabric: Fabric) -> None:
    waiting, writing = results_of(fabric.open()), results_of(fabric.open())
    with meanwhile(waiting.wait, ["a", "b"], LONG) as waited:
        writing.set_many([TaskRecord("a", TaskState.SUCCEEDED, payload=b"1"), TaskRecord("b", TaskState.RUNNING)])
        assert not waited.done()
        writing.set_many([TaskRecord("b", TaskState.FAILED)])
        assert {task_id: record.state for task_id, record in waited.result(PROMPTLY).items()} == {
            "a": TaskState.SUCCEEDED,
            "b": TaskState.FAILED,
        }


def test_waiting_ends_when_the_broker_settles_the_task(fabric: Fabric, broker: Broker) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    with meanwhile(results_of(fabric.open()).wait, ["a"], LONG) as waited:
        settle(broker, handout, record=record_of(handout, payload=b"42"))
        assert waited.result(PROMPTLY)["a"].payload == b"42"


def test_waiting_in_vain_returns_the_final_ones_there_are(fabric: Fabric) -> None:
    results = results_of(fabric.open_in_real_time())
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED), TaskRecord("b", TaskState.RUNNING)])
    assert set(results.wait(["a", "b", "c"], 0.05)) == {"a"}


def test_a_record_that_comes_with_a_settlement_does_not_replace_a_newer_one(broker: Broker, results: ResultBackend) -> None:
    publish(broker, "a")
    handout = take_one(broker)
    results.set_many([TaskRecord("a", TaskState.FAILED, 9, 9)])
    settle(broker, handout, record=record_of(handout))
    found = results.get("a")
    assert found is not None
    assert found.state is TaskState.FAILED


def test_a_release_leaves_no_record(broker: Broker, results: ResultBackend) -> None:
    publish(broker, "a")
    settle(broker, take_one(broker), Release())
    assert results.get("a") is None


def test_ten_thousand_records_are_listed_page_by_page(results: ResultBackend) -> None:
    results.set_many([TaskRecord(f"{number:05}", TaskState.SUCCEEDED) for number in range(10_000)])
    assert len(results.list_records(limit=100, offset=9_900).items) == 100


def test_a_redelivery_that_is_announced_refuses_what_an_older_holder_still_writes(results: ResultBackend) -> None:
    assert results.announce([TaskRecord("a", TaskState.RUNNING, 0, 2)]) == [None]
    assert results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 0, 1, payload=b"old")]) == [False]
    assert results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 0, 2, payload=b"new")]) == [True]


def test_announcing_returns_the_final_record_of_the_same_attempt_and_leaves_it(results: ResultBackend) -> None:
    results.set_many([TaskRecord("a", TaskState.SUCCEEDED, 1, 4, payload=b"done"), TaskRecord("b", TaskState.RETRIED, 0, 1)])
    found = results.announce([TaskRecord("a", TaskState.RUNNING, 1, 5), TaskRecord("b", TaskState.RUNNING, 1, 2)])
    assert found[0] is not None
    assert (found[0].payload, found[1]) == (b"done", None)
    standing = results.get("a")
    assert standing is not None
    assert standing.state is TaskState.SUCCEEDED


def test_a_final_record_of_an_earlier_attempt_gives_way_to_an_announcement(results: ResultBackend) -> None:
    results.set_many([TaskRecord("a", TaskState.FAILED, 3, 4)])
    assert results.announce([TaskRecord("a", TaskState.RUNNING, 3, 5, replay_count=1)]) == [None]
    standing = results.get("a")
    assert standing is not None
    assert standing.state is TaskState.RUNNING
