"""Unique tasks from their enqueue to their end, with real workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_actors import BulkEnqueueError, DuplicateTask, Handle, Task, TaskState
from stem_actors.executors.application import ApplicationSource
from stem_actors.model.outcome import Lapsed, Release
from tests.fixtures import unique_app
from tests.fixtures.fleet import Fleet
from tests.fixtures.hand_worker import settle, take
from tests.fixtures.redis_server import new_namespace, shared_url
from tests.fixtures.waiting import SOON, Journal, until

SOURCE = ApplicationSource("tests.fixtures.unique_app:app")


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    where = {"broker_url": shared_url(), "namespace": new_namespace()} if request.param == "redis" else {}
    fleet = Fleet(tmp_path, request.param, **where)
    yield fleet
    fleet.close()


@pytest.fixture
def tasks(fleet: Fleet) -> dict[str, Task[..., str]]:
    return unique_app.define(fleet.app)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def start(fleet: Fleet, **settings: Any) -> Any:
    return fleet.start(source=SOURCE, **settings)


def begun(journal: Journal) -> list[str]:
    return [line.split()[0] for line in journal.lines() if line.split()[1] == "begins"]


def ended(handle: Handle[Any]) -> TaskState:
    until(lambda: handle.status().state.is_final)
    return handle.status().state


def test_the_same_call_twice_is_one_task_and_one_run(fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    first = tasks["digest"].enqueue(journal.path, "w", "0.05")
    assert tasks["digest"].enqueue(journal.path, "w", "0.05") == first
    assert tasks["digest"].enqueue(journal.path, "other", "0.05") != first
    start(fleet)
    assert first.get(SOON) == "w"
    until(lambda: sorted(begun(journal)) == ["other", "w"])
    record = first.status()
    assert [held.owner for held in fleet.app.stores.broker.claims(record.meta["stem.unique.key"])] == []
    assert tasks["digest"].enqueue(journal.path, "w", "0.05") != first
    until(lambda: begun(journal).count("w") == 2)


def test_the_key_is_held_while_it_runs_and_through_its_retries(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal, gate: Path
) -> None:
    start(fleet)
    first = tasks["digest"].enqueue(journal.path, "w", str(gate))
    until(lambda: begun(journal) == ["w"])
    assert tasks["digest"].enqueue(journal.path, "w", str(gate)) == first
    gate.touch()
    assert first.get(SOON) == "w"
    assert tasks["digest"].enqueue(journal.path, "w", str(gate)) != first


def test_a_task_that_fails_for_good_gives_its_key_back(fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    start(fleet)
    first = tasks["failing"].enqueue(journal.path, "w")
    assert ended(first) is TaskState.FAILED
    second = tasks["failing"].enqueue(journal.path, "w")
    assert second != first
    assert ended(second) is TaskState.FAILED


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_task_that_is_cancelled_gives_its_key_back(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal, how: str
) -> None:
    task = tasks["digest"].options(expires=0.01) if how == "expired" else tasks["digest"]
    first = task.enqueue(journal.path, "w")
    if how == "revoked":
        first.revoke(reason="no")
    start(fleet)
    assert ended(first) is TaskState.CANCELLED
    assert tasks["digest"].enqueue(journal.path, "w").get(SOON) == "w"
    assert begun(journal) == ["w"]


def test_headers_count_where_they_are_named(tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    def enqueue(name: str, **headers: str) -> Handle[str]:
        return tasks[name].options(headers=headers).enqueue(journal.path, "w")

    assert enqueue("digest", tenant="a", traceparent="1") == enqueue("digest", tenant="b", traceparent="2")
    assert enqueue("by_tenant", tenant="a", traceparent="1") == enqueue("by_tenant", tenant="a", traceparent="2")
    assert enqueue("by_tenant", tenant="b") != enqueue("by_tenant", tenant="a")


def test_a_key_of_ones_own_takes_the_place_of_the_arguments(tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    user = tasks["digest"].options(unique_key="user-42")
    assert user.enqueue(journal.path, "a") == user.enqueue(journal.path, "b")
    assert user.options(meta={"stem.unique.override": "user-43"}).enqueue(journal.path, "a") != user.enqueue(journal.path, "a")


def test_the_order_of_a_dicts_keys_does_not_count(tasks: dict[str, Task[..., str]]) -> None:
    first = tasks["digest"].enqueue({"a": 1, "b": (2, 3)}, "w", x=1, y=2)
    assert tasks["digest"].enqueue({"b": [2, 3], "a": 1}, "w", y=2, x=1) == first
    assert tasks["digest"].enqueue({"b": [3, 2], "a": 1}, "w", y=2, x=1) != first


def test_a_policy_to_raise_raises_and_says_who_holds_the_key(
    tasks: dict[str, Task[..., str]], journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stem.client")
    first = tasks["strict"].enqueue(journal.path, "w")
    with pytest.raises(DuplicateTask, match="is unique") as caught:
        tasks["strict"].enqueue(journal.path, "w")
    assert caught.value.task_id == first.id
    assert [(record.id, record.unique_key) for record in caplog.records] == [(first.id, caught.value.key)]  # type: ignore[attr-defined]


def test_duplicates_are_counted_and_shown(fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    first = tasks["digest"].options(unique_key="k").enqueue(journal.path, "w")
    for _ in range(3):
        tasks["digest"].options(unique_key="k").enqueue(journal.path, "w")
    assert fleet.app.client.tally.snapshot()[0] == {("stem_tasks_deduplicated_total", ("digest", "default")): 3}
    (held,) = fleet.app.stores.broker.claims("k")
    assert (held.owner, held.refusals, len(held.duplicates)) == (first.id, 3, 3)


def test_in_bulk_each_call_comes_to_its_own_or_the_other_task(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal
) -> None:
    plain, digest, strict = tasks["plain"], tasks["digest"], tasks["strict"]
    a, b, c, d = fleet.app.enqueue_many(
        [
            digest.call(journal.path, "x"),
            plain.call(journal.path, "y"),
            digest.call(journal.path, "x"),
            plain.call(journal.path, "z"),
        ]
    )
    assert a == c
    assert len({a.id, b.id, d.id}) == 3
    held = strict.enqueue(journal.path, "s")
    with pytest.raises(BulkEnqueueError) as caught:
        fleet.app.enqueue_many([plain.call(journal.path, "u"), strict.call(journal.path, "s"), digest.call(journal.path, "x")])
    assert (len(caught.value.stored), len(caught.value.unknown), len(caught.value.missing)) == (1, 0, 1)
    start(fleet)
    assert held.get(SOON) == "s"
    until(lambda: sorted(begun(journal)) == ["s", "u", "x", "y", "z"])


def test_the_latest_takes_the_place_of_one_that_waits(fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal) -> None:
    task = tasks["latest"].options(unique_key="k")
    first = task.enqueue(journal.path, "old")
    second = task.enqueue(journal.path, "new")
    assert first != second
    start(fleet)
    assert second.get(SOON) == "new"
    assert ended(first) is TaskState.CANCELLED
    record = first.status()
    assert record.error is not None
    assert record.error.message == f"replaced by {second.id}"
    assert begun(journal) == ["new"]


def test_one_that_runs_goes_on_beside_the_one_that_replaces_it(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal, gate: Path
) -> None:
    start(fleet)
    task = tasks["latest"].options(unique_key="k")
    first = task.enqueue(journal.path, "old", str(gate))
    until(lambda: begun(journal) == ["old"])
    second = task.enqueue(journal.path, "new")
    assert second.get(SOON) == "new"
    gate.touch()
    assert first.get(SOON) == "old"


def test_until_started_a_second_is_kept_out_and_afterwards_let_in(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal, gate: Path
) -> None:
    first = tasks["until_started"].enqueue(journal.path, "w", str(gate))
    assert tasks["until_started"].enqueue(journal.path, "w", str(gate)) == first
    start(fleet)
    until(lambda: begun(journal) == ["w"])
    second = tasks["until_started"].enqueue(journal.path, "w", str(gate))
    assert second != first
    gate.touch()
    assert [first.get(SOON), second.get(SOON)] == ["w", "w"]


def test_what_was_lost_before_is_marked_and_gives_its_key_back_before_it_starts(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal
) -> None:
    first = tasks["until_started"].enqueue(journal.path, "w")
    settle(fleet.app, take(fleet.app), Lapsed("killed"), Release())
    start(fleet, concurrency=1)
    assert first.get(SOON) == "w"


def test_what_only_waits_in_a_worker_has_not_started(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal, gate: Path
) -> None:
    start(fleet, concurrency=1)
    blocker = tasks["plain"].enqueue(journal.path, "blocker", str(gate))
    until(lambda: begun(journal) == ["blocker"])
    first = tasks["until_started"].enqueue(journal.path, "w")
    until(lambda: sum(depth.inflight for depth in fleet.app.stores.broker.depths(["default"])) >= 1)
    assert tasks["until_started"].enqueue(journal.path, "w") == first
    gate.touch()
    assert blocker.get(SOON) == "blocker"
    assert first.get(SOON) == "w"


def test_a_settler_that_dies_leaves_nobody_waiting_to_start(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal
) -> None:
    worker = start(fleet)
    handles = [tasks["until_started"].enqueue(journal.path, f"w{number}") for number in range(60)]
    for _ in range(3):
        worker.kill_actor("settler")
    assert [handle.get(SOON) for handle in handles] == [f"w{number}" for number in range(60)]


def test_within_a_window_there_is_one_run_though_it_has_ended(
    fleet: Fleet, tasks: dict[str, Task[..., str]], journal: Journal
) -> None:
    start(fleet)
    first = tasks["window"].enqueue(journal.path, "w")
    assert first.get(SOON) == "w"
    assert tasks["window"].enqueue(journal.path, "w") == first
    assert begun(journal) == ["w"]


def test_a_unique_task_whose_worker_is_killed_keeps_its_key_and_runs_again(tmp_path: Path, journal: Journal) -> None:
    fleet = Fleet(tmp_path, "sqlite", visibility_timeout=1.0)
    try:
        tasks, gate = unique_app.define(fleet.app), tmp_path / "gate"
        worker = fleet.start_process(source=SOURCE)
        first = tasks["digest"].enqueue(journal.path, "w", str(gate))
        until(lambda: begun(journal) == ["w"])
        worker.process.popen.kill()
        worker.wait()
        assert tasks["digest"].enqueue(journal.path, "w", str(gate)) == first
        start(fleet)
        until(lambda: begun(journal) == ["w", "w"])
        assert tasks["digest"].enqueue(journal.path, "w", str(gate)) == first
        gate.touch()
        assert first.get(SOON) == "w"
        assert tasks["digest"].enqueue(journal.path, "w", str(gate)) != first
    finally:
        fleet.close()
