"""Lists of tasks, heartbeats as they come, and the health of stores."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from stem_actors.clock import SystemClock
from tests.fixtures import hand_worker
from tests.fixtures.node import Place
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def app(shell: Shell) -> Iterator[Stem]:
    """The application whose database the commands find by default."""
    with Stem(settings=Settings(broker_url=f"sqlite:///{shell.directory}/stem.db")) as made:
        yield made


# ---------------------------------------------------------------- task list


def test_tasks_are_listed_by_state_and_queue_newest_first(shell: Shell, app: Stem) -> None:
    failed = [app.enqueue_by_name("a", queue=queue).id for queue in ("default", "slow", "default")]
    for queue in ("default", "slow", "default"):
        hand_worker.fail(app, queue)
    cancelled = app.enqueue_by_name("b").id
    hand_worker.cancel(app)
    app.enqueue_by_name("waits")
    everything = shell.json("stem", "task", "list", "--json")
    assert ([item["id"] for item in everything["items"]], everything["nextOffset"]) == ([cancelled, *failed[::-1]], None)
    assert everything["items"][0] == shell.json("stem", "task", "show", cancelled, "--json")
    page = shell.json("stem", "task", "list", "--state", "failed", "--queue", "default", "-l", "1", "--json")
    assert ([item["id"] for item in page["items"]], page["nextOffset"]) == ([failed[2]], 1)
    done = shell.run("stem", "task", "list", "--state", "failed", "--limit", "2")
    header, *rows = ([cell.strip() for cell in line.split(" | ")] for line in done.stdout.splitlines())
    assert header == ["ID", "Task", "Queue", "State", "Attempt", "Updated", "Worker", "Error"]
    assert [(row[0], row[1], row[3], row[7]) for row in rows] == [
        (task_id, "a", "failed", "ValueError: no such thing") for task_id in (failed[2], failed[1])
    ]
    assert "--offset 2" in done.stderr


def test_a_list_without_tasks_says_so(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.json("stem", "task", "list", "--json") == {"items": [], "nextOffset": None}
    assert "stem queue list" in shell.run("stem", "task", "list").stderr
    assert shell.code("stem", "task", "list", "--state", "done")[0] == 64
    assert shell.code("stem", "task", "list", "--backend", "none")[0] == 70


# ---------------------------------------------------------------- worker status --follow


def beat(app: Stem, worker: str, age: float = 0.0) -> None:
    snapshot = {
        "worker_id": worker,
        "namespace": "stem",
        "timestamp": round((SystemClock().now() - age) * 1000),
        "isolate_count": 1,
        "inflight": 2,
        "queues": [],
        "extras": {"state": "ready"},
    }
    app.stores.heartbeats.put_heartbeat(worker, snapshot, 60.0)


def test_each_new_heartbeat_is_a_line_until_none_comes(shell: Shell, app: Stem) -> None:
    beat(app, "web-1", age=45.0)
    following = shell.start("stem", "worker", "status", "--follow", "--timeout", "2s", "--json")
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert (first["workerId"], first["stale"], first["inflight"]) == ("web-1", True, 2)
    beat(app, "web-1")
    second = json.loads(following.stdout.readline())
    assert (second["workerId"], second["stale"]) == ("web-1", False)
    assert second["timestamp"] > first["timestamp"]
    rest, err = following.communicate(timeout=60)
    assert (rest, err, following.returncode) == ("", "no heartbeat within 2s\n", 1)


def test_followed_heartbeats_are_plain_lines_in_a_pipe(shell: Shell, app: Stem) -> None:
    beat(app, "web-1", age=45.0)
    beat(app, "web-2")
    done = shell.run("stem", "worker", "status", "-f", "--timeout", "1s", "-w", "web-1")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("Worker web-1 (namespace: stem) @ ")
    assert re.search(r" isolate=1 inflight=2 \[stale (4[5-9]|5\d)s\] state=ready$", line)


def test_once_and_follow_exclude_each_other(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.code("stem", "worker", "status", "--once", "--follow")[0] == 64
    assert shell.code("stem", "worker", "status", "--follow", "--timeout", "soon")[0] == 64


def test_a_live_worker_is_followed(place: Place) -> None:
    place.environ["STEM_HEARTBEAT_INTERVAL"] = "1s"
    place.start()
    following = place.shell.start("stem", "worker", "status", "--follow", "--timeout", "0", "--json")
    assert following.stdout is not None
    try:
        beats = [json.loads(following.stdout.readline()) for _ in range(3)]
    finally:
        following.terminate()
        following.communicate(timeout=60)
    assert {each["workerId"] for each in beats} == {"n1-1"}
    assert len({each["timestamp"] for each in beats}) >= 2


# ---------------------------------------------------------------- health

ROLES = ["broker", "backend", "revocations", "locks", "rate_limits", "heartbeats", "control", "clock"]


def test_a_healthy_store_answers_for_every_role(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    found = shell.json("stem", "health", "--json")
    assert [(each["component"], each["status"]) for each in found] == [(role, "ok") for role in ROLES]
    assert all(each["latencyMs"] >= 0 for each in found)
    store = found[0]["context"]["store"]
    assert (store["kind"], store["path"], store["journalMode"]) == ("sqlite", str(shell.directory / "stem.db"), "wal")
    assert min(store["sizeBytes"], store["freeBytes"]) > 0
    text = shell.out("stem", "health", "--skip-backend").splitlines()
    assert [line.split(" | ")[0].strip() for line in text] == ["Component", *(role for role in ROLES if role != "backend")]


def test_checking_touches_no_queue_and_leaves_no_more_behind_each_time(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    sizes = []
    for _ in range(2):
        shell.out("stem", "health")
        with closing(sqlite3.connect(shell.directory / "stem.db")) as database:
            tables = ("queue", "ready", "leased", "dead", "result", "revocation", "lock", "heartbeat", "namespace")
            sizes.append([database.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables])
    assert sizes[0] == sizes[1]
    assert [each["queue"] for each in shell.json("stem", "queue", "list", "--json")] == ["default"]
    assert shell.json("stem", "task", "list", "--json")["items"] == []
    assert shell.out("stem", "worker", "status") == ""


def test_a_memory_broker_is_healthy_and_private(shell: Shell) -> None:
    found = shell.json("stem", "health", "--broker", "memory://", "--json")
    assert [each["status"] for each in found] == ["ok"] * len(ROLES)
    assert "private" in found[0]["message"]
    assert found[0]["context"]["store"]["isPrivate"] is True


def test_a_missing_database_is_an_error_with_a_remedy(shell: Shell) -> None:
    done = shell.run("stem", "health", "--json")
    (finding,) = json.loads(done.stdout)
    assert (done.returncode, finding["component"], finding["status"]) == (70, "broker", "error")
    assert finding["context"]["hints"]
    assert list(shell.directory.iterdir()) == []


def test_a_locked_database_is_an_error_within_the_timeout(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    with closing(sqlite3.connect(shell.directory / "stem.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        done = shell.run("stem", "health", "--timeout", "500ms", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 70
    assert (found[0]["component"], found[0]["status"], "within 0.5 s" in found[0]["message"]) == ("broker", "error", True)
    assert "not asked" in found[1]["message"]


def test_a_file_that_is_no_database_is_an_error(shell: Shell) -> None:
    (shell.directory / "stem.db").write_text("hello " * 1000)
    done = shell.run("stem", "health", "--json")
    assert (done.returncode, json.loads(done.stdout)[0]["status"]) == (70, "error")
    assert "Traceback" not in done.stderr
    assert shell.code("stem", "health", "--broker", "amqp://h")[0] == 64
    assert shell.code("stem", "health", "--timeout", "0")[0] == 64


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    "words",
    [
        ["task", "list"],
        ["queue", "purge", "default", "--yes"],
        ["dlq", "replay", "-q", "default", "--yes"],
        ["dlq", "purge", "-q", "default", "--yes"],
        ["worker", "status", "--follow", "--timeout", "1s"],
    ],
)
def test_a_database_that_is_not_there_is_not_made(shell: Shell, words: list[str]) -> None:
    code, text = shell.code("stem", *words)
    assert (code, "there is no database stem.db" in text) == (70, True)
    assert list(shell.directory.iterdir()) == []
