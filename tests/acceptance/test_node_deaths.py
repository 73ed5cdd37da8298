"""Nodes, workers and executors that die, and tasks that make them: what runs again, what is charged, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.fixtures.node import Place, eventually, is_alive

# ---------------------------------------------------------------- the node


@pytest.mark.parametrize("load", ["idle", "busy"])
def test_workers_of_a_node_that_was_killed_leave_by_themselves(place: Place, load: str) -> None:
    place.environ["STEM_MAX_DELIVERIES"] = "1"
    node = place.start("--drain-timeout", "1s", "--visibility-timeout", "60s")
    tasks = [place.app.enqueue_by_name("jobs.wait_for", ["go"]) for _ in range(4 if load == "busy" else 0)]
    if tasks:
        place.await_runs(count=2)
    node.send(signal.SIGKILL)
    node.wait(5)
    eventually(lambda: not node.everything(), timeout=10, hint="the end of all its processes")
    place.open_gate()
    place.start("--visibility-timeout", "60s")
    assert [task.get(timeout=10) for task in tasks] == ["go"] * len(tasks)
    assert {run["attempt"] for run in place.runs()} <= {0}


def test_tasks_end_under_a_worker_whose_node_was_killed(place: Place) -> None:
    node = place.start()
    task = place.app.enqueue_by_name("jobs.wait_for", ["go"])
    place.await_runs(task.id)
    node.send(signal.SIGKILL)
    node.wait(5)
    place.open_gate()
    assert task.get(timeout=10) == "go"
    eventually(lambda: not node.everything(), timeout=10, hint="the end of all its processes")
    assert len(place.runs(task.id, "start")) == 1


# ---------------------------------------------------------------- the worker


def test_a_worker_that_was_killed_is_replaced_and_its_tasks_run_again_within_a_lease(place: Place) -> None:
    visibility = 2.0
    node = place.start("--visibility-timeout", "2s")
    tasks = [place.app.enqueue_by_name("jobs.wait_for", ["go"]) for _ in range(2)]
    place.await_runs(count=2)
    place.start("--visibility-timeout", "2s")  # another, which reaches the broker all the time
    worker, executors = node.worker(), node.executors()
    assert len(executors) == 2
    os.kill(worker, signal.SIGKILL)
    died = time.monotonic()
    eventually(lambda: not any(map(is_alive, executors)), timeout=1, hint="the end of its executors")
    place.await_runs(count=4, timeout=visibility + 2)
    assert time.monotonic() - died < visibility + 1.5  # the promise, and half a second for this machine
    place.open_gate()
    assert [task.get(timeout=10) for task in tasks] == ["go", "go"]
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="worker", reason="killed") == 1, hint="its restart counted")
    eventually(lambda: not node.zombies(), hint="no zombies")
    assert node.worker() != worker


def test_what_the_tasks_of_a_dead_worker_had_started_is_killed(place: Place) -> None:
    node = place.start("--visibility-timeout", "60s")
    place.app.enqueue_by_name("jobs.start_others")
    (run,) = place.await_runs()
    assert all(map(is_alive, run["others"]))
    os.kill(node.worker(), signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, run["others"])), timeout=5, hint="the end of what a task had started")
    eventually(lambda: not node.zombies(), hint="no zombies")
    node.wait_ready()


def test_spawned_executors_die_with_their_worker_too(place: Place) -> None:
    node = place.start("--pool", "spawn", "--visibility-timeout", "2s")
    task = place.app.enqueue_by_name("jobs.wait_for", ["go"])
    place.await_runs(task.id)
    executors = eventually(lambda: len(found := node.executors()) == 2 and found, hint="two executors")
    assert isinstance(executors, set)
    os.kill(node.worker(), signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, executors)), timeout=1, hint="the end of its executors")
    place.open_gate()
    assert task.get(timeout=15) == "go"


@pytest.mark.soak
def test_a_worker_that_hangs_makes_the_node_unready_and_is_replaced(place: Place) -> None:
    node = place.start("--visibility-timeout", "1s")
    worker = node.worker()
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: "has reported nothing" in node.get("/readyz")[2], timeout=8, hint="its silence in /readyz")
    eventually(lambda: not is_alive(worker), timeout=10, hint="its end")
    node.wait_ready()
    assert place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=10) == 3


# ---------------------------------------------------------------- the executor


def test_an_executor_that_was_killed_is_replaced_at_once(place: Place) -> None:
    node = place.start("--visibility-timeout", "60s")
    task = place.app.enqueue_by_name("jobs.wait_for", ["go"])
    (run,) = place.await_runs(task.id)
    os.kill(run["pid"], signal.SIGKILL)
    place.await_runs(task.id, count=2, timeout=3)
    place.open_gate()
    assert task.get(timeout=10) == "go"
    died = {"worker": "n1-1", "cause": "signal 9"}
    eventually(lambda: node.metric("stem_executor_deaths_total", **died) == 1, hint=f"a counted death: {[*node.samples()]}")


def test_poison_is_set_aside_with_its_cause_and_its_neighbours_are_not_touched(place: Place) -> None:
    node = place.start()
    neighbours = [place.app.enqueue_by_name("jobs.note", [number]) for number in range(250)]
    poison = place.app.enqueue_by_name("jobs.die")
    neighbours += [place.app.enqueue_by_name("jobs.note", [number]) for number in range(250, 500)]
    assert [task.get(timeout=30) for task in neighbours] == list(range(500))
    eventually(lambda: poison.status().state.is_final, timeout=30, hint="the end of the poison")

    shown = place.shell.json("stem", "dlq", "show", "--queue", "default", "--id", poison.id)
    assert (shown["reason"], shown["envelope"]["name"], shown["envelope"]["attempt"]) == ("poison", "jobs.die", 0)
    assert [death["cause"] if isinstance(death, dict) else death for death in shown["envelope"]["deaths"]] == [
        "signal 9 (SIGKILL)"
    ] * 5
    assert "SIGKILL" in json.dumps(shown["meta"])
    assert len(place.runs(poison.id, "start")) == 5

    runs = Counter(run["number"] for run in place.runs(what="start") if "number" in run)
    assert runs == dict.fromkeys(range(500), 1)
    assert {run["attempt"] for run in place.runs()} == {0}
    eventually(lambda: node.metric("stem_dead_letters_total", reason="poison") == 1, hint="the metrics of what ran")
    assert node.metric("stem_redeliveries_total", cause="died") == 5
    assert node.metric("stem_dead_letters_total") == 1


# ---------------------------------------------------------------- the interpreter's lock


def hold(place: Place, seconds: int, visibility: int) -> None:
    node = place.start("--visibility-timeout", f"{visibility}s")
    place.start("--visibility-timeout", f"{visibility}s")
    task = place.app.enqueue_by_name("jobs.hold_the_interpreter", [seconds])
    place.await_runs(task.id)
    task.get(timeout=seconds + 15)
    assert [run["what"] for run in place.runs(task.id)] == ["start", "end"]
    eventually(
        lambda: sum(each.metric("stem_lease_renewed_total") for each in place.nodes) >= seconds / visibility, hint="renewals"
    )
    assert node.metric("stem_leases_lost_total") == 0


def test_a_task_that_holds_the_interpreter_longer_than_its_lease_runs_once(place: Place) -> None:
    hold(place, seconds=6, visibility=1)


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_a_task_of_a_minute_that_holds_the_interpreter_runs_once(place: Place) -> None:
    hold(place, seconds=60, visibility=3)


# ---------------------------------------------------------------- several nodes


def test_two_nodes_and_several_producers_on_one_file_run_every_task_once(place: Place) -> None:
    nodes = [place.start("--visibility-timeout", "10s") for _ in range(2)]
    script = (
        "import sys\nfrom stem_actors import Stem\n"
        f"with Stem('{place.url}') as app:\n"
        "    start = int(sys.argv[1])\n"
        "    for n in range(start, start + 100): app.enqueue_by_name('jobs.note', [n])\n"
    )
    (place.directory / "produce.py").write_text(script)
    producers = [subprocess.Popen([sys.executable, "produce.py", str(1000 * n)], cwd=place.directory) for n in range(3)]
    assert [producer.wait(30) for producer in producers] == [0, 0, 0]
    wanted = {1000 * n + i for n in range(3) for i in range(100)}
    eventually(lambda: len(place.runs(what="end")) >= len(wanted), timeout=30, hint="the end of all tasks")
    for node in nodes:
        node.send(signal.SIGTERM)
    assert [node.wait(10) for node in nodes] == [0, 0]
    assert Counter(run["number"] for run in place.runs(what="start")) == dict.fromkeys(wanted, 1)
    assert not any(depth.pending or depth.inflight or depth.dead for depth in place.app.stores.broker.depths())
