"""Tasks that are acknowledged when they start: once at most, and every end on record."""

from __future__ import annotations

import pytest

from stem_actors import TaskCancelled, TaskFailed, TaskState
from stem_actors.model.shutdown import ShutdownMode
from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import SOON, Journal, until


def depths(fleet: Fleet) -> list[tuple[int, int, int, int]]:
    return [(each.pending, each.inflight, each.delayed, each.dead) for each in fleet.app.stores.broker.depths(["default"])]


def test_results_come_back_all_the_same(fleet: Fleet, journal: Journal) -> None:
    fleet.start()
    handles = [fleet.enqueue("aonce" if n % 3 == 0 else "once", journal.path, f"w{n}") for n in range(40)]
    handles += [fleet.enqueue("short", journal.path, f"x{n}") for n in range(20)]
    assert [handle.get(SOON) for handle in handles] == [*(f"w{n}" for n in range(40)), *(f"x{n}" for n in range(20))]
    assert set(journal.words().values()) == {1}
    until(lambda: sum(map(sum, depths(fleet))) == 0)


def test_the_broker_knows_nothing_of_it_while_it_runs(fleet: Fleet, journal: Journal) -> None:
    fleet.set(visibility_timeout=0.5)  # its lease would lapse several times
    fleet.start()
    handle = fleet.enqueue("once", journal.path, "x", "nap")
    journal.wait_for("x")
    assert sum(map(sum, depths(fleet))) == 0
    assert handle.status().state is TaskState.RUNNING
    neighbour = fleet.enqueue("nap", journal.path, "y", 1.5)
    neighbour.get(SOON)
    handle.revoke(terminate=True)
    with pytest.raises(TaskCancelled):
        handle.get(SOON)
    assert journal.words()["x"] == 1


@pytest.mark.parametrize(
    ("how", "error"),
    [("raise", "ValueError"), ("retry", "RetryRefused"), ("kill", "WorkerLost.*SIGKILL"), ("exit", "WorkerLost")],
)
def test_a_run_that_does_not_end_well_is_the_only_one(fleet: Fleet, journal: Journal, how: str, error: str) -> None:
    fleet.start()
    handle = fleet.enqueue("once", journal.path, "x", how)
    with pytest.raises(TaskFailed, match=error):
        handle.get(SOON)
    assert fleet.enqueue("echo", 1).get(SOON) == 1
    assert journal.lines() == ["x"]
    assert sum(map(sum, depths(fleet))) == 0
    assert "deadLetter" not in handle.status().meta


def test_what_has_not_started_is_handed_back_when_the_worker_leaves(fleet: Fleet, journal: Journal) -> None:
    fleet.set(drain_timeout=0.2, soft_grace_period=0.2)
    worker = fleet.start(concurrency=1)
    running = fleet.enqueue("once", journal.path, "first", "nap")
    journal.wait_for("first")
    waiting = [fleet.enqueue("once", journal.path, f"w{n}") for n in range(5)]
    worker.shut_down(ShutdownMode.WARM)
    assert worker.wait() == 0
    with pytest.raises(TaskFailed, match="WorkerLost"):
        running.get(0)
    fleet.start(concurrency=1)
    ends = []
    for handle in waiting:  # one may have been acknowledged and not begun
        try:
            ends.append(handle.get(SOON))
        except TaskFailed as error:
            ends.append(error.error_type)
    assert ends.count("WorkerLost") <= 1
    assert set(journal.words().values()) == {1}


def test_a_settler_that_dies_in_between_costs_nothing(fleet: Fleet, journal: Journal) -> None:
    worker = fleet.start()
    handles = [fleet.enqueue("once", journal.path, f"w{n}") for n in range(100)]
    for _ in range(3):
        worker.kill_actor("settler")
    assert [handle.get(SOON) for handle in handles] == [f"w{n}" for n in range(100)]
    assert set(journal.words().values()) == {1}
