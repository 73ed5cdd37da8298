"""The commands beside a running node, as its operator uses them; and what a node obeys."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fixtures.node import Place, RunningNode, eventually
from tests.fixtures.shell import Shell

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def node(shared_place: Place) -> RunningNode:
    shared_place.environ["STEM_HEARTBEAT_INTERVAL"] = "1s"
    return shared_place.start("--queue", "default", "--queue", "slow")


@pytest.fixture
def shell(shared_place: Place, node: RunningNode) -> Shell:
    return shared_place.shell


def test_enqueue_waits_and_prints_the_id_then_the_result(shell: Shell) -> None:
    done = shell.run("stem", "enqueue", "jobs.add", "--args", "[1, 2]", "--wait", "20s")
    task_id, result = done.stdout.splitlines()
    assert (done.returncode, result, done.stderr) == (0, "3", "")
    assert re.fullmatch(r"[0-9a-f-]{36}", task_id)


def test_enqueue_and_wait_as_json_is_one_document(shell: Shell) -> None:
    shown = shell.json("stem", "enqueue", "jobs.add", "--kwargs", '{"a": 1, "b": 2}', "--queue", "slow", "--wait", "--json")
    assert (shown["state"], shown["payload"], shown["attempt"], shown["error"]) == ("succeeded", 3, 0, None)
    assert (shown["meta"]["task"], shown["meta"]["queue"], shown["meta"]["worker"]) == ("jobs.add", "slow", "n1-1")
    assert ISO.fullmatch(shown["updatedAt"])


def test_enqueue_reports_a_failure_by_its_exit_code(shell: Shell) -> None:
    done = shell.run("stem", "enqueue", "jobs.fail", "--app", "jobs", "--wait", "20s")
    assert done.returncode == 1
    assert "failed: ValueError: no such thing" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_task_is_seen_running_and_then_done(shared_place: Place, shell: Shell) -> None:
    task_id = shell.out("stem", "enqueue", "jobs.wait_for", "--args", '["seen"]').strip()
    shared_place.await_runs(task_id)
    shown = eventually(
        lambda: (shown := shell.json("stem", "task", "show", task_id, "--json"))["state"] == "running" and shown, hint="running"
    )
    assert isinstance(shown, dict)
    assert shown["meta"]["worker"] == "n1-1"
    code, text = shell.code("stem", "task", "wait", task_id, "--timeout", "100ms")
    assert (code, "has not ended" in text) == (70, True)
    (depth,) = [each for each in shell.json("stem", "queue", "list", "--json") if each["queue"] == "default"]
    assert (depth["pending"], depth["inflight"], depth["paused"]) == (0, 1, False)
    shared_place.open_gate("seen")
    assert shell.out("stem", "task", "wait", task_id) == '"seen"\n'
    assert "succeeded" in shell.out("stem", "task", "show", task_id)


def test_dead_letters_are_found(shell: Shell) -> None:
    task_id = shell.out("stem", "enqueue", "jobs.fail", "--max-retries", "0", "--queue", "slow").strip()
    assert shell.code("stem", "task", "wait", task_id, "--timeout", "20s")[0] == 1
    (entry,) = shell.json("stem", "dlq", "list", "--queue", "slow", "--json")["entries"]
    assert ISO.fullmatch(entry.pop("deadAt"))
    wanted = {"id": task_id, "task": "jobs.fail", "queue": "slow", "attempt": 1, "deaths": 0, "reason": "max-retries-exhausted"}
    assert entry == wanted
    shown = shell.json("stem", "dlq", "show", "--queue", "slow", "--id", task_id)
    assert (shown["reason"], shown["meta"]["error"]) == ("max-retries-exhausted", "ValueError: no such thing")
    assert task_id in shell.out("stem", "dlq", "list", "--queue", "slow")
    assert shell.code("stem", "dlq", "show", "--queue", "slow", "--id", "nobody")[0] == 1


def test_workers_show_their_last_heartbeat(shell: Shell, node: RunningNode) -> None:
    def ready() -> str:
        done = shell.run("stem", "worker", "status", "--once", "--json")
        return done.stdout if '"state": "ready"' in done.stdout else ""

    (line,) = eventually(ready, hint="a heartbeat of a worker that is ready").splitlines()
    beat = json.loads(line)
    keys = {"workerId", "namespace", "timestamp", "isolateCount", "inflight", "lastLeaseRenewal", "version", "queues", "extras"}
    assert set(beat) >= keys
    assert (beat["workerId"], beat["namespace"], beat["version"]) == ("n1-1", "stem", "1")
    assert ISO.fullmatch(beat["timestamp"])
    assert isinstance(beat["isolateCount"], int)
    assert beat["executorCount"] == beat["isolateCount"]
    extras = beat["extras"]
    assert extras["subscriptions"]["queues"] == ["default", "slow"]
    assert (extras["pid"], extras["concurrency"], extras["readyReason"]) == (node.worker(), 2, None)
    text = shell.out("stem", "worker", "status", "--once")
    assert re.match(r"Worker n1-1 \(namespace: stem\) @ \S+Z isolate=\d inflight=\d", text)
    assert "  state: ready\n  queues: default, slow\n" in text
    assert "n1-1" not in shell.out("stem", "worker", "status", "--worker", "n2-1")


def test_tasks_are_listed(shell: Shell) -> None:
    listed = {each["name"]: each for each in shell.json("stem", "tasks", "ls", "--app", "jobs", "--json")}
    assert set(listed) >= {"jobs.add", "jobs.fail", "jobs.note"}
    assert listed["jobs.fail"]["maxRetries"] == 0
    assert listed["jobs.note"]["description"] == "A neighbour."
    assert "jobs.add" in shell.out("stem", "tasks", "ls", "--app", "jobs")


@pytest.mark.parametrize(
    "words",
    [
        ["enqueue", "jobs.add", "--args", "[1, 2]", "--wait", "20s"],
        ["queue", "list"],
        ["dlq", "list", "--queue", "default"],
        ["worker", "status", "--once"],
    ],
    ids=lambda words: words[0],
)
def test_a_node_is_reached_from_another_directory(
    shared_place: Place, node: RunningNode, tmp_path: Path, words: Sequence[str]
) -> None:
    elsewhere = Shell(tmp_path)
    assert elsewhere.run("stem", *words, "--broker", shared_place.url).returncode == 0
    assert elsewhere.run("stem", "--broker", shared_place.url, *words).returncode == 0
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what a worker obeys


def test_a_worker_answers_a_ping(shared_place: Place, node: RunningNode) -> None:
    reply = shared_place.ask_worker("n1-1", "ping", {})
    assert (reply.worker_id, reply.status) == ("n1-1", "ok")
    assert reply.payload["queue"] == "default"


def test_a_worker_kills_no_actor_of_its_own_unless_it_was_started_for_chaos(shared_place: Place, node: RunningNode) -> None:
    reply = shared_place.ask_worker("n1-1", "kill_actor", {"actor": "consumer"})
    assert reply.status == "error"
    assert reply.error is not None
    assert "--enable-chaos" in reply.error["message"]
    assert node.metric("stem_actor_restarts_total") == 0


def test_a_command_that_nobody_knows_is_answered_with_an_error(shared_place: Place, node: RunningNode) -> None:
    assert shared_place.ask_worker("n1-1", "dance", {}).status == "error"


def test_a_node_for_chaos_says_which_actor_it_does_not_have(place: Place) -> None:
    place.start("--enable-chaos")
    reply = place.ask_worker("n1-1", "kill_actor", {"actor": "juggler"})
    assert (reply.status, reply.error) == ("error", {"message": "no actor is called 'juggler'"})
    assert place.ask_worker("n1-1", "kill_actor", {"actor": "consumer"}).payload == {"killed": "consumer"}
    assert place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=10) == 3


def test_a_worker_that_was_told_to_shut_down_leaves_and_is_replaced(place: Place) -> None:
    node = place.start()
    worker = node.worker()
    assert place.ask_worker("n1-1", "shutdown", {"mode": "warm"}).payload["status"] == "initiated"
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="worker", reason="normal") == 1, hint="its restart")
    node.wait_ready()
    assert node.worker() != worker
