"""Workers that get more executors and fewer: nothing is interrupted, nothing is held beyond what they can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_actors.actors import messages as m
from stem_actors.executors.application import ApplicationSource
from stem_actors.model.control import ControlCommand, encode_command, worker_channel
from tests.fixtures.fleet import Fleet, RunningWorker
from tests.fixtures.waiting import Journal, until

ROUGH = ApplicationSource("tests.fixtures.rough_app:app")


def resize(fleet: Fleet, worker: RunningWorker, executors: int) -> None:
    command = ControlCommand(f"resize-{executors}", "set_concurrency", payload={"value": executors})
    fleet.app.stores.control.send(worker_channel("stem", worker.name), encode_command(command), 10.0)
    until(lambda: worker.reports.snapshot["extras"]["concurrency"] == executors)


def executors(worker: RunningWorker) -> list[str]:
    """The states of those that are there."""
    return sorted(each["state"] for each in worker.reports.snapshot["extras"]["executors"])


def test_running_tasks_end_where_they_run_while_a_worker_shrinks(fleet: Fleet, journal: Journal) -> None:
    worker = fleet.start(concurrency=4)
    handles = [fleet.enqueue("nap", journal.path, f"n{number}", 1.5) for number in range(4)]
    for number in range(4):
        journal.wait_for(f"n{number}-starts")
    resize(fleet, worker, 1)
    assert len({handle.get(20) for handle in handles}) == 4
    assert {handle.status().delivery_count for handle in handles} == {1}
    until(lambda: executors(worker) == ["idle", "idle"])  # one of each kind
    assert fleet.enqueue("note", journal.path, "after").get(20)
    assert worker.reports.counters["stem_executor_deaths_total"] == 0


def test_one_that_shrank_takes_no_more_than_it_can_run(processes: Fleet, journal: Journal) -> None:
    shrunk = processes.start(source=ROUGH, concurrency=6, prefetch_multiplier=3)
    resize(processes, shrunk, 1)
    until(lambda: executors(shrunk) == ["idle"])
    for number in range(8):
        processes.enqueue("nap", journal.path, f"n{number}", 0.4)
    until(lambda: any(depth.inflight for depth in processes.app.stores.broker.depths(["default"])))
    (depth,) = processes.app.stores.broker.depths(["default"])
    assert depth.inflight <= 1 + 3
    journal.wait_for("n7")


def test_a_worker_that_grows_while_one_leaves_keeps_it_and_starts_no_other_beside_it(processes: Fleet, journal: Journal) -> None:
    worker = processes.start_process(concurrency=2)
    handles = [processes.enqueue("nap", journal.path, f"n{number}", 2.0) for number in range(2)]
    for number in range(2):
        journal.wait_for(f"n{number}-starts")
    before = set(worker.reports.executors)
    resize(processes, worker, 1)
    resize(processes, worker, 2)
    pids = {handle.get(20) for handle in handles}
    again = {processes.enqueue("nap", journal.path, f"m{number}", 0.5) for number in range(2)}
    assert {handle.get(20) for handle in again} <= pids
    assert len(pids) == 2
    assert pids <= before


def test_executors_with_threads_and_coroutines_shrink_as_well(tmp_path: Path, journal: Journal) -> None:
    fleet = Fleet(tmp_path, "sqlite", concurrency=2, threads=3)
    try:
        worker = fleet.start(source=ROUGH)
        handles = [fleet.enqueue("nap", journal.path, f"n{number}", 1.5) for number in range(6)]
        for number in range(6):
            journal.wait_for(f"n{number}-starts")
        resize(fleet, worker, 1)
        assert len({handle.get(20) for handle in handles}) == 2
        handles = [fleet.enqueue("nap", journal.path, f"m{number}", 0.2) for number in range(6)]
        assert len({handle.get(20) for handle in handles}) == 1
    finally:
        fleet.close()


def test_coroutines_go_on_while_their_executor_leaves(processes: Fleet, journal: Journal) -> None:
    worker = processes.start(concurrency=2)
    until(lambda: executors(worker) == ["idle"] * 4)  # two of each kind
    handles = [processes.enqueue("anap", journal.path, f"n{number}", 1.5) for number in range(10)]
    for number in range(10):
        journal.wait_for(f"n{number}-starts")
    resize(processes, worker, 1)
    assert len({handle.get(20) for handle in handles}) == 2
    assert {handle.status().delivery_count for handle in handles} == {1}
    assert len({processes.enqueue("anap", journal.path, f"m{number}", 0.1).get(20) for number in range(4)}) == 1


@pytest.mark.parametrize("actor", [m.EXECUTOR_POOL, m.REVOKE_LISTENER])
def test_a_restarted_actor_keeps_the_number(fleet: Fleet, journal: Journal, actor: str) -> None:
    worker = fleet.start(concurrency=1)
    resize(fleet, worker, 3)
    worker.kill_actor(actor)
    handles = [fleet.enqueue("nap", journal.path, f"n{number}", 1.0) for number in range(3)]
    for handle in handles:
        handle.get(30)
    order = [line.endswith("-starts") for line in journal.lines()]
    assert order == [True] * 3 + [False] * 3 or actor == m.EXECUTOR_POOL  # whose new executors come one by one
    assert worker.reports.snapshot["extras"]["concurrency"] == 3
    until(lambda: len(executors(worker)) == 6)
