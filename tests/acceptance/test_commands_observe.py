"""`stem observe`: queues, workers and dead letters from stores and from files, and the metrics of running nodes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Settings, Stem
from tests.fixtures import hand_worker
from tests.fixtures.node import Place, RunningNode, eventually
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def app(shell: Shell) -> Iterator[Stem]:
    """The application whose database the commands find by default."""
    with Stem(settings=Settings(broker_url=f"sqlite:///{shell.directory}/stem.db")) as made:
        yield made


# ---------------------------------------------------------------- from the stores


def test_queues_that_are_worked_on_are_listed_with_those_that_hold_something(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t", queue="mail")
    snapshot = {"worker_id": "w-1", "timestamp": 0, "extras": {"subscriptions": {"queues": ["idle"]}}}
    app.stores.heartbeats.put_heartbeat("w-1", snapshot, 60.0)
    shell.environ["STEM_WORKER_QUEUES"] = "here"
    found = {each["queue"]: each for each in shell.json("stem", "observe", "queues", "--json")}
    assert {queue: each["pending"] for queue, each in found.items()} == {"default": 0, "here": 0, "idle": 0, "mail": 1}
    assert found["mail"]["oldestMs"] >= 0
    assert found["idle"]["oldestMs"] is None
    header, *rows = ([cell.strip() for cell in line.split("|")] for line in shell.out("stem", "observe", "queues").splitlines())
    assert header[:6] == ["Queue", "Pending", "Inflight", "Delayed", "Dead", "Oldest"]
    assert [row[0] for row in rows] == ["default", "here", "idle", "mail"]


def test_workers_are_listed_with_what_they_run_and_when_they_were_heard_of(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.run("stem", "observe", "workers").stderr == "no worker has sent a heartbeat lately\n"
    for worker, sent_ms in (("w-1", 0), ("w-2", 4_102_444_800_000)):
        snapshot = {"worker_id": worker, "timestamp": sent_ms, "isolate_count": 2, "extras": {"state": "ready"}}
        app.stores.heartbeats.put_heartbeat(worker, snapshot, 60.0)
    first, second = shell.json("stem", "observe", "workers", "--json")
    assert first == {"id": "w-1", "active": 2, "lastHeartbeat": "1970-01-01T00:00:00.000Z", "stale": True, "state": "ready"}
    assert (second["lastHeartbeat"], second["stale"]) == ("2100-01-01T00:00:00.000Z", False)
    assert "1970-01-01T00:00:00.000Z (stale)" in shell.out("stem", "observe", "workers")


def test_dead_letters_of_all_queues_are_listed(shell: Shell, app: Stem) -> None:
    ids = [app.enqueue_by_name("t", queue=queue).id for queue in ("a", "b", "a")]
    for queue in ("a", "b", "a"):
        hand_worker.fail(app, queue)
    found = shell.json("stem", "observe", "dlq", "--json")
    assert [(each["queue"], each["taskId"]) for each in found] == [("a", ids[2]), ("a", ids[0]), ("b", ids[1])]
    assert {each["reason"] for each in found} == {"max-retries-exhausted"}
    assert all(each["deadAt"].endswith("Z") for each in found)
    lines = shell.out("stem", "observe", "dlq").splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == ["Queue", "Task ID", "Reason"]
    assert len(lines) == 4


def test_a_thousand_dead_letters_are_enough(shell: Shell, app: Stem) -> None:
    for queue, count in (("a", 450), ("b", 600)):
        for _ in range(count):
            app.enqueue_by_name("t", queue=queue)
        for _ in range(count):
            hand_worker.fail(app, queue)
    done = shell.run("stem", "observe", "dlq", "--json")
    found = json.loads(done.stdout)
    assert [sum(1 for each in found if each["queue"] == queue) for queue in ("a", "b")] == [450, 550]
    assert "stem dlq list --queue" in done.stderr


# ---------------------------------------------------------------- from a file

SNAPSHOT: dict[str, list[dict[str, Any]]] = {
    "queues": [{"queue": "mail", "pending": 3, "inflight": 1}],
    "workers": [{"id": "web-1", "active": 2, "lastHeartbeat": "2025-01-01T01:00:00+01:00"}],
    "dlq": [{"queue": "mail", "taskId": "0190", "reason": "poison", "deadAt": "2025-01-01T00:00:00Z"}],
}


@pytest.mark.parametrize(
    ("what", "document"),
    [
        (
            "queues",
            SNAPSHOT["queues"][0] | {"delayed": 0, "dead": 0, "oldestMs": None, "paused": False, "perSecond": None},
        ),
        ("workers", {"id": "web-1", "active": 2, "lastHeartbeat": "2025-01-01T00:00:00.000Z"}),
        ("dlq", {**SNAPSHOT["dlq"][0], "deadAt": "2025-01-01T00:00:00.000Z"}),
    ],
)
def test_a_snapshot_is_shown_without_any_store(shell: Shell, what: str, document: dict[str, Any]) -> None:
    (shell.directory / "snapshot.json").write_text(json.dumps(SNAPSHOT))
    assert shell.json("stem", "observe", what, "--file", "snapshot.json", "--json") == [document]
    assert len(shell.out("stem", "observe", what, "-f", "snapshot.json").splitlines()) == 2
    assert shell.json("stem", "observe", what, "--file", "nowhere.json", "--json") == []
    assert [path.name for path in shell.directory.iterdir()] == ["snapshot.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"queues": 1}', '{"queues": [1]}', '{"queues": [{"pending": 1}]}', '"x"'])
def test_what_is_no_snapshot_is_wrong_usage(shell: Shell, text: str) -> None:
    (shell.directory / "snapshot.json").write_text(text)
    code, said = shell.code("stem", "observe", "queues", "--file", "snapshot.json")
    assert (code, "snapshot.json" in said) == (64, True)


def test_a_database_that_is_not_there_is_not_made(shell: Shell) -> None:
    for what in ("queues", "workers", "dlq"):
        assert shell.code("stem", "observe", what)[0] == 70
    assert shell.code("stem", "observe")[0] == 64
    assert list(shell.directory.iterdir()) == []


# ---------------------------------------------------------------- metrics


@pytest.fixture(scope="module")
def node(shared_place: Place) -> RunningNode:
    """A node that has run two tasks."""
    node = shared_place.start()
    for number in range(2):
        shared_place.app.enqueue_by_name("jobs.add", [number, 1]).get(timeout=20)
    eventually(lambda: node.metric("stem_tasks_succeeded_total") == 2, hint="what was counted")
    return node


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
    return port


def test_the_metrics_of_a_node_are_one_document(shared_place: Place, node: RunningNode) -> None:
    for named in (node.address, f"http://{node.address}", f"http://{node.address}/metrics"):
        found = shared_place.shell.json("stem", "observe", "metrics", "--node", named)
        assert set(found) == {"counters", "histograms", "gauges"}
        (succeeded,) = (each for each in found["counters"] if each["name"] == "stem_tasks_succeeded_total")
        assert succeeded["value"] == 2
        assert succeeded["tags"] == {"task": "jobs.add", "queue": "default", "worker": "n1-1"}
        (duration,) = (each for each in found["histograms"] if each["name"] == "stem_task_duration_seconds")
        assert set(duration) == {"name", "tags", "count", "sum", "min", "max", "avg", "node"}
        assert duration["count"] == 2
        assert duration["min"] <= duration["avg"] <= duration["max"]
        assert all(each["updatedAt"].endswith("Z") for each in found["gauges"])


def test_the_node_of_the_settings_is_asked_unless_one_is_named(shared_place: Place, node: RunningNode) -> None:
    shell = Shell(shared_place.directory, {"STEM_ADMIN": node.address, "http_proxy": "http://127.0.0.1:1"})
    assert shell.json("stem", "observe", "metrics")["counters"]
    everywhere = Shell(shared_place.directory, {"STEM_ADMIN": f"0.0.0.0:{node.address.rpartition(':')[2]}"})
    assert everywhere.json("stem", "observe", "metrics")["counters"]


def test_a_node_that_does_not_answer_makes_it_part_of_an_answer(shared_place: Place, node: RunningNode) -> None:
    gone = f"127.0.0.1:{free_port()}"
    done = shared_place.shell.run("stem", "observe", "metrics", "--node", gone, "--node", node.address)
    assert done.returncode == 75
    assert {each["node"] for each in json.loads(done.stdout)["counters"]} == {f"http://{node.address}/metrics"}
    assert f"http://{gone}/metrics did not answer" in done.stderr
    code, said = shared_place.shell.code("stem", "observe", "metrics", "--node", gone)
    assert (code, gone in said) == (70, True)


def test_a_page_that_is_no_exposition_is_no_answer(shared_place: Place, node: RunningNode) -> None:
    for path in ("livez", "status", "nothing"):
        assert shared_place.shell.code("stem", "observe", "metrics", "--node", f"http://{node.address}/{path}")[0] == 70


def test_a_node_that_hangs_is_given_up_after_the_timeout(shared_place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        named = f"127.0.0.1:{server.getsockname()[1]}"
        assert shared_place.shell.code("stem", "observe", "metrics", "--node", named, "--timeout", "200ms")[0] == 70


@pytest.mark.parametrize("flags", [["--node", "ftp://h/x"], ["--node", "http://"], ["--timeout", "0"], ["--timeout", "soon"]])
def test_what_cannot_be_asked_is_wrong_usage(shell: Shell, flags: list[str]) -> None:
    assert shell.code("stem", "observe", "metrics", *flags)[0] == 64
    assert Shell(shell.directory, {"STEM_ADMIN": "off"}).code("stem", "observe", "metrics")[0] == 64
