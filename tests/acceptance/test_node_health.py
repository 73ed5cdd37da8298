"""What a node says of itself over HTTP: probes, metrics, status."""

from __future__ import annotations

import json
import socket

import pytest

from stem_actors.metrics import TABLE
from tests.fixtures.node import Place, RunningNode, eventually


@pytest.fixture(scope="module")
def node(shared_place: Place) -> RunningNode:
    return shared_place.start("--workers", "2", "--enable-chaos")


def test_a_node_is_alive_before_it_is_ready_and_says_why_it_is_not(place: Place) -> None:
    (place.directory / "slow.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nfrom jobs import app\n"
    )
    node = place.start(app="slow", is_ready=False)
    eventually(lambda: "executor" in node.get("/readyz")[2], hint="the reason for which it is not ready")
    status, _, text = node.get("/readyz")
    assert (status, text) == (503, "not ok\nn1-1: starting: no executor is ready\n")
    assert node.get("/livez")[0] == 200
    place.open_gate()
    node.wait_ready()


def test_probes_answer_in_a_word_in_detail_or_as_json(node: RunningNode) -> None:
    assert node.get("/livez") == (200, "text/plain; charset=utf-8", "ok\n")
    assert node.get("/readyz") == (200, "text/plain; charset=utf-8", "ok\n")
    assert node.get("/readyz?verbose")[2] == "ok\nn1-1: ok\nn1-2: ok\n"
    status, content_type, body = node.get("/readyz", accept="application/json")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "reasons": {"n1-1": [], "n1-2": []}}


def test_a_page_that_is_not_there_names_those_that_are(node: RunningNode) -> None:
    status, _, text = node.get("/nothing")
    assert (status, text) == (404, "not found: /livez /readyz /metrics /status\n")


def test_status_is_the_heartbeat_of_each_worker(node: RunningNode) -> None:
    eventually(lambda: node.metric("stem_executors", state="idle") == 4, hint="executors")
    status, content_type, body = node.get("/status")
    assert (status, content_type) == (200, "application/json")
    first, second = json.loads(body)
    assert (first["workerId"], second["workerId"]) == ("n1-1", "n1-2")
    assert set(first) >= {"namespace", "timestamp", "isolateCount", "inflight", "lastLeaseRenewal", "version", "queues", "extras"}
    assert first["extras"]["subscriptions"]["queues"] == ["default"]
    assert first["extras"]["concurrency"] == len(first["extras"]["executors"]) == 2
    assert first["extras"]["pid"] != node.process.pid


def test_counters_agree_with_what_ran(shared_place: Place, node: RunningNode) -> None:
    handles = [shared_place.app.enqueue_by_name("jobs.add", [n, n]) for n in range(20)]
    handles.append(shared_place.app.enqueue_by_name("jobs.fail_once"))
    assert [handle.get(timeout=20) for handle in handles] == [*range(0, 40, 2), 1]
    lost = shared_place.app.enqueue_by_name("jobs.fail", max_retries=0)
    eventually(lambda: lost.status().state.is_final, hint="the end of a task that fails")
    eventually(lambda: node.metric("stem_tasks_started_total") == 23, hint="the metrics of what ran, from both workers")
    by_task = {"task": "jobs.add", "queue": "default"}
    assert node.metric("stem_tasks_started_total", **by_task) == node.metric("stem_tasks_succeeded_total", **by_task) == 20
    assert node.metric("stem_tasks_started_total", task="jobs.fail_once") == 2
    assert node.metric("stem_tasks_retried_total", task="jobs.fail_once") == 1
    assert node.metric("stem_tasks_failed_total", task="jobs.fail", reason="max-retries-exhausted") == 1
    assert node.metric("stem_dead_letters_total", queue="default", reason="max-retries-exhausted") == 1
    assert node.metric("stem_task_duration_seconds_count", task="jobs.add") == 20
    assert node.metric("stem_task_duration_seconds_bucket", task="jobs.add", le="+Inf") == 20
    assert node.metric("stem_queue_latency_seconds_count", task="jobs.add") == 20
    assert sum(node.metric("stem_tasks_started_total", worker=worker) for worker in ("n1-1", "n1-2")) == 23


def test_gauges_show_each_worker_and_each_queue_it_works_on(node: RunningNode) -> None:
    eventually(lambda: node.metric("stem_heartbeat_timestamp_seconds", worker="n1-2"), hint="a heartbeat")
    for worker in ("n1-1", "n1-2"):
        assert node.metric("stem_worker_ready", worker=worker) == 1
        assert node.metric("stem_worker_concurrency", worker=worker, namespace="stem") == 2
        eventually(lambda: node.metric("stem_executors", worker=worker, state="idle") == 2, hint="idle executors")  # noqa: B023
    names = {name: labels for name, labels, _ in node.samples()}
    for name in ("stem_queue_depth", "stem_queue_inflight", "stem_queue_delayed", "stem_queue_oldest_seconds"):
        assert names[name] == {"queue": "default"}, "a queue that is empty has a depth of 0, and no alert misses it"
    assert names["stem_dead_letter_depth"] == {"queue": "default"}
    assert set(names["stem_mailbox_depth"]) == {"worker", "actor"}
    assert set(names["stem_build_info"]) == {"version"}


def test_names_that_nobody_knows_are_counted_as_one(shared_place: Place, node: RunningNode) -> None:
    for name in ("nobody.knows", "this.either"):
        shared_place.app.enqueue_by_name(name, queue="default", expires=2)
    eventually(lambda: node.metric("stem_tasks_deferred_total", task="_unknown") >= 2, hint="their being put off")
    assert node.metric("stem_tasks_deferred_total") == node.metric("stem_tasks_deferred_total", task="_unknown")


def test_every_sample_is_of_a_metric_in_the_table(node: RunningNode) -> None:
    suffixes = ("_bucket", "_count", "_sum")
    for name, labels, _ in node.samples():
        metric = TABLE.get(name) or next(TABLE[name.removesuffix(suffix)] for suffix in suffixes if name.endswith(suffix))
        assert set(labels) - {"le"} == set(metric.labels)


def test_restarts_are_counted_by_child_and_reason(shared_place: Place, node: RunningNode) -> None:
    for actor in ("housekeeper", "executor_pool"):
        assert shared_place.ask_worker("n1-2", "kill_actor", {"actor": actor}).status == "ok"
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="executor_pool") == 1, hint="the restart of the pool")
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="consumer") == 1, hint="the restart of what depends on it")
    (reason,) = {
        labels["reason"] for _, labels, _ in node.samples() if labels.get("actor") == "housekeeper" and "reason" in labels
    }
    assert reason == "crashed"
    node.wait_ready()
    assert shared_place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=20) == 3


def test_a_port_that_is_taken_ends_the_node_and_names_the_flag(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = place.shell.run("stem-node", "--app", "jobs", "--admin", f"127.0.0.1:{port}")
    assert done.returncode == 70
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--admin" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_works_without_its_pages(place: Place) -> None:
    node = place.start("--admin", "off", is_ready=False)
    assert place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=20) == 3
    assert not any("admin" in entry for entry in node.entries())


def test_what_a_worker_counted_last_is_not_lost_when_it_leaves(place: Place) -> None:
    node = place.start()
    for handle in [place.app.enqueue_by_name("jobs.add", [n, n]) for n in range(20)]:
        handle.get(timeout=20)
    place.ask_worker("n1-1", "shutdown", {"mode": "warm"})
    eventually(lambda: node.metric("stem_actor_restarts_total", actor="worker") == 1, hint="its restart")
    assert node.metric("stem_tasks_succeeded_total", task="jobs.add") == 20
