"""What a worker says of itself beside its work: its tree, what it got done by queue, and no count twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.fleet import Fleet, ProcessWorker, ThreadWorker
from tests.fixtures.waiting import until

ACTORS = ["settler", "lease_renewer", "work", "housekeeper", "heartbeat", "revoke_listener"]


def extras(worker: ProcessWorker | ThreadWorker) -> dict[str, Any]:
    found: dict[str, Any] = worker.reports.snapshot["extras"]
    return found


def actor(worker: ProcessWorker | ThreadWorker, name: str) -> dict[str, Any]:
    return next(each for each in extras(worker)["tree"] if each["id"] == name)


def test_a_heartbeat_shows_the_whole_tree_and_who_was_restarted_why(fleet: Fleet) -> None:
    worker = fleet.start()
    assert extras(worker)["node"] == "w"
    assert [each["id"] for each in extras(worker)["tree"]] == ACTORS
    assert [each["id"] for each in actor(worker, "work")["children"]] == ["executor_pool", "consumer"]
    until(lambda: {each["state"] for each in extras(worker)["tree"]} == {"running"})
    settler = actor(worker, "settler")
    assert set(settler) == {"id", "state", "restarts", "reasons", "mailbox", "lastProgressMs", "handler"}
    assert (settler["restarts"], settler["mailbox"]) == (0, 0)
    worker.kill_actor("settler")
    until(lambda: actor(worker, "settler")["restarts"] == 1)
    assert actor(worker, "settler")["reasons"] == {"crashed": 1}


def test_a_heartbeat_counts_by_queue_how_runs_ended_and_how_fast(fleet: Fleet) -> None:
    fleet.set(queues=("default", "slow"))
    worker = fleet.start()
    for _ in range(3):
        fleet.enqueue("echo", 1)
    fleet.enqueue("echo", 1, queue="slow")
    fleet.enqueue("fail", queue="slow", max_retries=0)

    def counted() -> dict[str, dict[str, Any]]:
        return {each.pop("queue"): each for each in map(dict, extras(worker)["throughput"])}

    until(lambda: sum(each["succeeded"] + each["failed"] for each in counted().values()) == 5)
    assert {queue: (each["succeeded"], each["failed"], each["retried"]) for queue, each in counted().items()} == {
        "default": (3, 0, 0),
        "slow": (1, 1, 0),
    }
    assert all(each["perSecond"] > 0 for each in counted().values())


@pytest.mark.parametrize("times", [1, 3])
def test_a_heartbeat_that_starts_anew_counts_nothing_twice(fleet: Fleet, times: int) -> None:
    worker = fleet.start()
    for handle in [fleet.enqueue("echo", number) for number in range(5)]:
        handle.get(20)
    fleet.wait_counted(worker, "stem_tasks_succeeded_total", 5)
    for number in range(1, times + 1):
        worker.kill_actor("heartbeat")
        fleet.wait_counted(worker, "stem_actor_restarts_total heartbeat crashed", number)
    fleet.enqueue("echo", 6).get(20)
    fleet.wait_counted(worker, "stem_tasks_succeeded_total", 6)
    assert worker.reports.counters["stem_tasks_succeeded_total"] == 6
    assert worker.reports.counters["stem_actor_restarts_total"] == times
