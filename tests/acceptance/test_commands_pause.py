"""Queues paused and resumed, workers that grow and shrink: by the installed commands, with three workers, on both brokers."""

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
from tests.fixtures.node import Place, RunningNode, eventually
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


def depths(place: Place) -> dict[str, dict[str, Any]]:
    return {each["queue"]: each for each in place.shell.json("stem", "queue", "list", "--json")}


def start_three(place: Place, *flags: str) -> list[RunningNode]:
    nodes = [place.start(*flags, is_ready=False) for _ in range(3)]
    for node in nodes:
        node.wait_ready()
    eventually(lambda: len(place.app.stores.heartbeats.list_heartbeats()) == 3)
    return nodes


def test_a_paused_queue_is_left_alone_by_every_worker_until_it_is_resumed(cluster: Place) -> None:
    nodes = start_three(cluster, "--queue", "default", "--queue", "mail", "--concurrency", "1")
    replies = cluster.shell.json(
        "stem", "worker", "pause", "--queue", "mail", "--reason", "a test", "--requester", "me", "--json"
    )
    assert [reply["workerId"] for reply in replies] == ["n1-1", "n2-1", "n3-1"]
    for reply in replies:
        assert reply["payload"] == {
            "queues": ["mail"],
            "updated": ["mail"],
            "persisted": True,
            "paused": ["mail"],
            "namespace": "stem",
        }
    assert all("queue mail is paused by me: a test" in node.log for node in nodes)
    held_up = cluster.app.enqueue_by_name("jobs.note", [1], queue="mail").id
    cluster.await_runs(cluster.app.enqueue_by_name("jobs.note", [2]).id)
    late = cluster.start("--queue", "mail", "--concurrency", "1")  # finds the pause in the store
    eventually(lambda: "all its queues are paused" in late.log)
    mail = depths(cluster)["mail"]
    assert (mail["paused"], mail["pending"]) == (True, 1)
    (stats,) = cluster.shell.json("stem", "worker", "stats", "-w", "n4-1", "--json")
    assert (stats["payload"]["pausedQueues"], stats["payload"]["state"]) == (["mail"], "ready")
    status = cluster.ask_worker("n1-1", "queue_status", {}).payload
    assert (status["paused"], status["subscriptions"]["queues"]) == (["mail"], ["default", "mail"])
    assert cluster.runs(held_up) == []
    lines = cluster.shell.out("stem", "worker", "resume", "-q", "mail").splitlines()
    assert [each.strip() for each in lines[0].split("|")] == ["Worker", "Status", "Updated", "Paused queues"]
    assert [each.strip() for each in lines[1].split("|")] == ["n1-1", "ok", "mail", ""]
    cluster.await_runs(held_up)
    assert not any(each["paused"] for each in depths(cluster).values())


def test_what_runs_goes_on_and_what_waits_in_a_worker_is_handed_back_uncharged(cluster: Place) -> None:
    cluster.start("--concurrency", "1", "--prefetch-multiplier", "4")
    running = cluster.app.enqueue_by_name("jobs.wait_for", ["go"]).id
    cluster.await_runs(running)
    waiting = [cluster.app.enqueue_by_name("jobs.note", [number]).id for number in range(3)]
    cluster.shell.out("stem", "queue", "pause", "default")
    eventually(lambda: (depths(cluster)["default"]["pending"], depths(cluster)["default"]["inflight"]) == (3, 1))
    cluster.open_gate()
    assert cluster.app.handle(running).get(timeout=10) == "go"
    assert [cluster.runs(task_id) for task_id in waiting] == [[], [], []]
    cluster.shell.out("stem", "queue", "resume", "default")
    assert [cluster.app.handle(task_id).get(timeout=10) for task_id in waiting] == [0, 1, 2]
    assert {cluster.app.handle(task_id).status().attempt for task_id in waiting} == {0}


def test_a_worker_that_does_not_hear_of_a_pause_finds_it_in_the_store(cluster: Place) -> None:
    cluster.start()
    cluster.app.stores.pauses.pause(["default"], None, "somebody")  # and tell nobody
    eventually(lambda: "queue default is paused by somebody" in cluster.nodes[0].log, 20)
    cluster.app.stores.pauses.resume(["default"])
    task_id = cluster.app.enqueue_by_name("jobs.note", [1]).id
    cluster.await_runs(task_id, timeout=20)


def test_a_pause_is_kept_without_workers_and_exit_codes_say_who_has_answered(cluster: Place) -> None:
    cluster.app.enqueue_by_name("jobs.note", [1])  # so that there is a store
    done = cluster.shell.run("stem", "queue", "pause", "default", "mail", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        [{"queue": "default", "paused": True}, {"queue": "mail", "paused": True}],
    )
    assert {queue for queue, each in depths(cluster).items() if each["paused"]} == {"default", "mail"}
    done = cluster.shell.run("stem", "worker", "resume", "-q", "mail", "--timeout", "200ms")
    assert (done.returncode, "resumed in the store" in done.stderr) == (70, True)
    assert {queue for queue, each in depths(cluster).items() if each["paused"]} == {"default"}
    assert cluster.shell.code("stem", "worker", "pause")[0] == 64
    assert cluster.shell.code("stem", "worker", "pause", "-q", "no name")[0] == 64
    assert cluster.shell.code("stem", "queue", "pause")[0] == 64
    assert cluster.shell.code("stem", "worker", "concurrency", "0")[0] == 64
    assert cluster.shell.code("stem", "worker", "concurrency", "many")[0] == 64


def test_a_stopped_worker_does_not_hold_up_a_pause_and_leaves_the_queue_alone_when_it_is_back(cluster: Place) -> None:
    cluster.start("--concurrency", "1")
    stopped = cluster.start("--concurrency", "1")
    eventually(lambda: len(cluster.app.stores.heartbeats.list_heartbeats()) == 2)
    worker = stopped.worker()
    os.kill(worker, signal.SIGSTOP)
    done = cluster.shell.run("stem", "worker", "pause", "-q", "default", "--timeout", "1s", "--json")
    assert done.returncode == 75
    assert "n2-1 did not answer" in done.stderr
    os.kill(worker, signal.SIGCONT)
    eventually(lambda: "queue default is paused" in stopped.log, 20)


def test_a_worker_gets_more_executors_and_fewer_while_its_tasks_go_on(cluster: Place) -> None:
    node = cluster.start("--concurrency", "2", "--enable-chaos")
    (reply,) = cluster.shell.json("stem", "worker", "concurrency", "4", "--json")
    assert reply["payload"] == {"was": 2, "concurrency": 4, "namespace": "stem"}
    running = [cluster.app.enqueue_by_name("jobs.wait_for", ["go"]).id for _ in range(4)]
    cluster.await_runs(count=4)  # all at once: each waits for the gate
    eventually(lambda: node.metric("stem_worker_concurrency") == 4)
    assert cluster.shell.out("stem", "worker", "concurrency", "1").splitlines()[1].split("|")[2].strip() == "4"

    def stats() -> tuple[int, int]:
        (reply,) = cluster.shell.json("stem", "worker", "stats", "--json")
        return reply["payload"]["concurrency"], reply["payload"]["prefetch"]

    eventually(lambda: stats() == (1, 2))
    cluster.open_gate()
    assert [cluster.app.handle(task_id).get(timeout=10) for task_id in running] == ["go"] * 4
    assert len(cluster.runs(what="start")) == 4  # none was interrupted, none ran twice
    eventually(lambda: len(node.executors()) == 1)
    cluster.ask_worker("n1-1", "kill_actor", {"actor": "executor_pool"})
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="executor_pool") == 1)
    cluster.await_runs(cluster.app.enqueue_by_name("jobs.note", [1]).id)
    assert stats() == (1, 2)
    refused = cluster.ask_worker("n1-1", "set_concurrency", {"delta": -1})
    assert (refused.status, refused.error) == (
        "error",
        {"message": "the concurrency of this worker is from 1 to 256, not 0"},
    )
    assert cluster.ask_worker("n1-1", "set_concurrency", {"delta": 2}).payload["concurrency"] == 3


def test_a_worker_that_scales_itself_follows_its_backlog(cluster: Place) -> None:
    cluster.environ |= {
        "STEM_AUTOSCALE_TICK": "100ms",
        "STEM_AUTOSCALE_IDLE_PERIOD": "500ms",
        "STEM_AUTOSCALE_UP_COOLDOWN": "100ms",
        "STEM_AUTOSCALE_DOWN_COOLDOWN": "100ms",
    }
    node = cluster.start("--concurrency", "3", "--autoscale", "1:3", "--prefetch-multiplier", "1")

    def steps() -> list[tuple[int, int, str]]:
        return [(each["from"], each["to"], each["reason"]) for each in node.entries() if each.get("logger") == "stem.autoscaler"]

    down = [(3, 2, "scale-down"), (2, 1, "scale-down")]
    eventually(lambda: steps() == down)
    for _ in range(12):
        cluster.app.enqueue_by_name("jobs.wait_for", ["go"])
    eventually(lambda: steps() == [*down, (1, 2, "scale-up"), (2, 3, "scale-up")])
    cluster.await_runs(count=3)
    eventually(lambda: node.metric("stem_worker_concurrency") == 3)
    done = cluster.shell.run("stem", "worker", "concurrency", "2")
    assert (done.returncode, "scales itself" in done.stdout) == (70, True)
    cluster.open_gate()
    eventually(lambda: steps()[4:] == down, 20)
