"""`stem worker ping | stats | inspect | revoke | shutdown`, with workers that are well, stopped, draining and gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Settings, Stem
from tests.fixtures.node import Place, eventually
from tests.fixtures.redis_server import own_server


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.soak)])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place on either broker, where nodes can be started and commands find it."""
    with nullcontext() if request.param == "sqlite" else own_server() as server:
        place = Place(tmp_path)
        if server is not None:
            place.app.close()
            place.url = server.url
            place.app = Stem(settings=Settings(broker_url=server.url))
        place.environ["STEM_BROKER_URL"] = place.url
        try:
            yield place
        finally:
            place.close()


def test_every_worker_answers_a_ping(cluster: Place) -> None:
    for _ in range(3):
        cluster.start()
    eventually(lambda: len(cluster.app.stores.heartbeats.list_heartbeats()) == 3)
    replies = cluster.shell.json("stem", "worker", "ping", "--json")
    assert [reply["workerId"] for reply in replies] == ["n1-1", "n2-1", "n3-1"]
    assert {reply["status"] for reply in replies} == {"ok"}
    assert len({reply["incarnation"] for reply in replies}) == 3
    assert replies[0]["payload"]["queue"] == "default"
    assert replies[0]["payload"]["subscriptions"] == {"queues": ["default"], "broadcasts": []}
    assert cluster.shell.out("stem", "worker", "ping", "-w", "n2-1").splitlines()[1].split(" | ")[1].strip() == "ok"


def test_a_worker_that_is_stopped_is_named_and_the_others_count_as_part_of_an_answer(cluster: Place) -> None:
    cluster.start()
    stopped = cluster.start()
    eventually(lambda: len(cluster.app.stores.heartbeats.list_heartbeats()) == 2)
    os.kill(stopped.worker(), signal.SIGSTOP)
    done = cluster.shell.run("stem", "worker", "ping", "--timeout", "1s", "--json")
    assert done.returncode == 75
    assert [reply["workerId"] for reply in json.loads(done.stdout)] == ["n1-1"]
    assert "n2-1 did not answer" in done.stderr


def test_without_workers_there_is_no_answer(cluster: Place) -> None:
    cluster.app.enqueue_by_name("jobs.note", [1])  # so that there is a store
    code, text = cluster.shell.code("stem", "worker", "ping", "--timeout", "200ms")
    assert (code, "no worker answered" in text) == (70, True)
    done = cluster.shell.run("stem", "worker", "stats", "-w", "nobody", "--timeout", "200ms")
    assert (done.returncode, "worker nobody did not answer" in done.stderr) == (70, True)


def test_stats_and_inspect_show_what_runs_and_what_is_revoked(cluster: Place) -> None:
    cluster.start()
    task_id = cluster.app.enqueue_by_name("jobs.wait_for", ["go"]).id
    cluster.await_runs(task_id)

    def active() -> list[str]:
        (reply,) = cluster.shell.json("stem", "worker", "stats", "--json")
        return [run["id"] for run in reply["payload"]["active"]]

    eventually(lambda: active() == [task_id])
    (reply,) = cluster.shell.json("stem", "worker", "stats", "--json")
    assert reply["payload"]["queues"] == {"default": 1}
    assert (reply["payload"]["concurrency"], reply["payload"]["state"]) == (2, "ready")
    assert f"running jobs.wait_for {task_id}" in cluster.shell.out("stem", "worker", "stats")
    cluster.shell.out("stem", "worker", "revoke", "--task", "never-was", "--reason", "a test", "--requester", "me")
    (reply,) = cluster.shell.json("stem", "worker", "inspect", "--json")
    assert [run["status"] for run in reply["payload"]["active"]] == ["running"]
    (entry,) = reply["payload"]["revoked"]
    assert (entry["taskId"], entry["reason"], entry["requestedBy"]) == ("never-was", "a test", "me")
    (reply,) = cluster.shell.json("stem", "worker", "inspect", "--no-include-revoked", "--json")
    assert "revoked" not in reply["payload"]
    cluster.open_gate()


def test_a_running_task_is_revoked_and_a_waiting_one_never_starts(cluster: Place) -> None:
    cluster.start("--concurrency", "1")
    running = cluster.app.enqueue_by_name("jobs.wait_for", ["go"]).id
    cluster.await_runs(running)
    waiting = cluster.app.enqueue_by_name("jobs.note", [1]).id
    (reply,) = cluster.shell.json("stem", "worker", "revoke", "-t", running, "-t", waiting, "--terminate", "--json")
    assert set(reply["payload"]["tasks"]) == {running, waiting}
    assert reply["payload"]["revoked"] == 2
    for task_id in (running, waiting):
        record = _when_cancelled(cluster, task_id)
        assert record["meta"]["revokedBy"] == "stem-cli"
    assert cluster.runs(waiting) == []


def _when_cancelled(cluster: Place, task_id: str) -> dict[str, Any]:
    """The task's record as the command shows it, once it is cancelled."""

    def record() -> dict[str, Any] | None:
        shown = cluster.shell.run("stem", "task", "show", task_id, "--json").stdout
        found: dict[str, Any] = json.loads(shown) if shown else {}
        return found if found.get("state") == "cancelled" else None

    found = eventually(record)
    assert found is not None
    return found


def test_a_revocation_without_workers_is_kept_for_those_to_come(cluster: Place) -> None:
    task_id = cluster.app.enqueue_by_name("jobs.note", [1]).id
    done = cluster.shell.run("stem", "worker", "revoke", "--task", task_id, "--timeout", "200ms")
    assert (done.returncode, "will find it in the store" in done.stderr) == (0, True)
    cluster.start()
    eventually(lambda: cluster.app.handle(task_id).status().state == "cancelled")
    assert cluster.runs(task_id) == []


def test_a_worker_leaves_when_it_is_told_to_and_its_node_starts_another(cluster: Place) -> None:
    node = cluster.start()
    (before,) = cluster.shell.json("stem", "worker", "ping", "--json")
    (reply,) = cluster.shell.json("stem", "worker", "shutdown", "--mode", "hard", "--json")
    assert reply["payload"] == {"status": "initiated", "mode": "hard", "active": 0}

    def successor() -> bool:
        done = cluster.shell.run("stem", "worker", "ping", "--timeout", "500ms", "-w", "n1-1", "--json")
        return done.returncode == 0 and json.loads(done.stdout)[0]["incarnation"] != before["incarnation"]

    eventually(successor)
    assert node.process.poll() is None


def test_wrong_usage_is_said_before_anything_is_asked(cluster: Place) -> None:
    assert cluster.shell.code("stem", "worker", "revoke")[0] == 64
    assert cluster.shell.code("stem", "worker", "ping", "--timeout", "soon")[0] == 64
    assert cluster.shell.code("stem", "worker", "shutdown", "--mode", "gently")[0] == 64
