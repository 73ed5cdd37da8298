"""What every command prints with `--json`, on real stores with workers at work: keys, types, times; also when some are silent."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stem_actors.actors.messages import ShutdownMode
from stem_cli.parsers.stem import build_stem_parser
from tests.fixtures import hand_worker
from tests.fixtures.fleet import Fleet
from tests.fixtures.node import Place, RunningNode
from tests.fixtures.postgres_server import own_server as own_postgres
from tests.fixtures.redis_server import own_server
from tests.fixtures.shapes import ANYTHING, NUMBER, TIME, mapping, maybe, misfits
from tests.fixtures.shell import Shell
from tests.fixtures.waiting import Journal, until

STORES = [  # one crowd each; SQLite's is a soak's
    pytest.param("sqlite", marks=[pytest.mark.xdist_group("json-sqlite"), pytest.mark.soak]),
    pytest.param("redis", marks=pytest.mark.xdist_group("json-redis")),
]
APP = "tests.fixtures.tasks_app:app"


@dataclass
class Crowd:
    """Workers on one store, and a shell where commands find it."""

    fleet: Fleet
    shell: Shell
    journal: Journal

    def busy(self, worker: str, queue: str) -> str:
        """Have a worker run a task that does not end; the task's id. It is in the heartbeat that commands read."""
        handle = self.fleet.enqueue("nap", self.journal.path, worker, 600.0, queue=queue)
        self.journal.wait_for(f"{worker}-starts", 60.0)
        until(lambda: handle.id in {run["id"] for run in self.beat(worker)["extras"]["active"]}, 60.0, "a heartbeat with its run")
        return handle.id

    def beat(self, worker: str) -> dict[str, Any]:
        beats = self.fleet.app.stores.heartbeats.list_heartbeats()
        return next((beat for beat in beats if beat["workerId"] == worker), {"extras": {"active": []}})

    def ask(self, words: Sequence[str], code: int = 0) -> tuple[list[Any], str]:
        """The documents that a command prints, a line each, and what it says to people."""
        done = self.shell.run("stem", *words, "--json")
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def make_crowd(kind: str, folder: Path, url: str | None, **settings: Any) -> Iterator[Crowd]:
    fleet = Fleet(folder, kind, concurrency=1, drain_timeout=60.0, **({"broker_url": url} if url else {}), **settings)
    try:
        shell = Shell(folder, {"STEM_BROKER_URL": fleet.settings.broker_url, "STEM_HEARTBEAT_INTERVAL": "1s"})
        yield Crowd(fleet, shell, Journal(folder))
    finally:
        fleet.close()


# ---------------------------------------------------------------- all well


@pytest.fixture(scope="module", params=STORES)
def crowd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Three workers: one runs a task, two have done some; and a dead letter, a delayed task and a failed one."""
    folder = tmp_path_factory.mktemp(request.param)
    with nullcontext() if request.param == "sqlite" else own_server() as server:
        for made in make_crowd(request.param, folder, server.url if server is not None else None):
            made.fleet.start(queues=("default", "busy"))
            made.fleet.start()
            made.fleet.start()
            made.busy("w-1", "busy")
            made.fleet.enqueue("echo", 1, task_id="done").get(60)
            made.fleet.enqueue("fail", max_retries=0, task_id="failed")
            made.fleet.enqueue("echo", 1, queue="later", countdown=3600.0, task_id="later")
            until(lambda made=made: "failed" in made.fleet.dead_letters())  # type: ignore[misc]
            for number in range(3):
                made.fleet.enqueue("echo", 1, queue="dead", task_id=f"dead-{number}")
                hand_worker.fail(made.fleet.app, "dead")
            singular = made.fleet.app.task(name="singular", unique=True, queue="later")(lambda: None)
            singular.options(countdown=3600.0, unique_key="only-one").enqueue()
            yield made


REPLY = {"requestId": str, "workerId": str, "incarnation": str, "status": str}
SUBSCRIPTIONS = {"queues": [str], "broadcasts": [str]}
RUN = {"id": str, "task": str, "queue": str, "attempt": int, "runtimeMs": int, "startedAt": TIME}
PING = {"timestamp": TIME, "queue": str, "inflight": int, "subscriptions": SUBSCRIPTIONS}
STATS = {
    **PING,
    "namespace": str,
    "host": str,
    "pid": int,
    "concurrency": int,
    "maxConcurrency": int,
    "autoscaleEnabled": bool,
    "prefetch": int,
    "queues": mapping(int),
    "pausedQueues": [str],
    "active": [RUN],
    "lastLeaseRenewalMsAgo": maybe(int),
    "lastQueueDepth": maybe(int),
}
REVOKED = {
    "taskId": str,
    "version": int,
    "issuedAt": TIME,
    "terminate": bool,
    "reason": maybe(str),
    "requestedBy": maybe(str),
    "expiresAt": maybe(TIME),
}
INSPECT = {
    "timestamp": TIME,
    "inflight": int,
    "active": [{**RUN, "status": str, "lastLeaseRenewalMsAgo": maybe(int)}],
    "pausedQueues": [str],
    "revoked": [REVOKED],
}
REVOKE = {
    **{name: [str] for name in ("tasks", "inflight", "ignored", "expired")},
    "revoked": int,
    "latestVersion": int,
    "namespace": str,
}
PAUSES = {"queues": [str], "updated": [str], "persisted": ANYTHING, "paused": [str], "namespace": str}
ACTOR = {"id": str, "state": str, "restarts": int, "reasons": mapping(int), "mailbox": int, "lastProgressMs": int, "handler": str}
TREE = [{**ACTOR, "children?": [ACTOR]}]
HEARTBEAT = {
    "workerId": str,
    "namespace": str,
    "timestamp": TIME,
    "isolateCount": int,
    "executorCount": int,
    "inflight": int,
    "lastLeaseRenewal": maybe(TIME),
    "version": str,
    "queues": [{"name": str, "inflight": int}],
    "stale": bool,
    "extras": {
        "node": str,
        "host": str,
        "pid": int,
        "concurrency": int,
        "subscriptions": SUBSCRIPTIONS,
        "active": [RUN],
        "startedAt": TIME,
        "tree": TREE,
        "throughput": [{"queue": str, "succeeded": int, "failed": int, "retried": int, "perSecond": maybe(NUMBER)}],
    },
}
QUEUE = {
    "queue": str,
    "pending": int,
    "inflight": int,
    "delayed": int,
    "dead": int,
    "oldestMs": maybe(int),
    "paused": bool,
}
TASK = {
    "id": str,
    "state": str,
    "attempt": int,
    "payload": ANYTHING,
    "error": maybe({"type": str, "message": str, "retryable": bool, "meta": mapping(ANYTHING)}),
    "meta": {"task": str, "queue": str},
    "createdAt": TIME,
    "updatedAt": TIME,
}
ENVELOPE = {
    "id": str,
    "name": str,
    "args": ANYTHING,
    "headers": mapping(str),
    "enqueuedAt": TIME,
    "notBefore": maybe(TIME),
    "priority": int,
    "attempt": int,
    "maxRetries": int,
    "visibilityTimeout": maybe(NUMBER),
    "queue": str,
    "meta": mapping(ANYTHING),
}
DEAD = {"id": str, "task": str, "queue": str, "attempt": int, "deaths": int, "deadAt": TIME, "reason": str}
CHECKS = {"status": str, "checks": [{"check": str, "ok": bool, "level": str, "message?": str}]}
HEALTH = [
    {
        "component": str,
        "status": str,
        "message": str,
        "context?": {
            "tls?": {"caCertificate": str, "clientCertificate": str, "allowInsecure": bool},
            "hints?": [str],
        },
    }
]
METRIC = {"name": str, "tags": mapping(str), "value": NUMBER}
METRICS = {
    "counters": [METRIC],
    "histograms": [
        {
            "name": str,
            "tags": mapping(str),
            "count": int,
            "sum": NUMBER,
            "min": maybe(NUMBER),
            "max": maybe(NUMBER),
            "avg": maybe(NUMBER),
        }
    ],
    "gauges": [{**METRIC, "updatedAt": TIME}],
}
TOP = {
    "timestamp": TIME,
    "namespace": str,
    "broker": str,
    "nodes": [{"node": str, "host": str, "workers": int, "ready": int, "running": int, "concurrency": int, "inflight": int}],
    "workers": [
        {
            "workerId": str,
            "node": str,
            "host": str,
            "pid": int,
            "state": str,
            "readyReason": maybe(str),
            "stale": bool,
            "ageMs": int,
            "running": int,
            "concurrency": int,
            "inflight": int,
            "completed": int,
            "perSecond": maybe(NUMBER),
            "uptimeMs": int,
            "queues": [str],
            "tree": TREE,
            "executors": [{"pid": int, "state": str, "inside": int}],
        }
    ],
    "queues": [{**QUEUE, "perSecond": maybe(NUMBER)}],
    "running": [{"task": str, "id": str, "queue": str, "attempt": int, "worker": str, "runtimeMs": int}],
    "missing": [str],
}
TASKS = [
    {
        "name": str,
        "description": maybe(str),
        "idempotent": bool,
        "tags": [str],
        "queue": str,
        "maxRetries": int,
        "priority": int,
    }
]


def replies(payload: Any) -> Any:
    return [{**REPLY, "payload": payload}]


SHAPES: Sequence[tuple[str, int, Any]] = (
    # What only looks, and then what changes something that no other line looks at.
    ("worker ping", 1, replies(PING)),
    ("worker stats", 1, replies(STATS)),
    ("worker inspect", 1, replies(INSPECT)),
    ("worker status", 3, HEARTBEAT),
    ("worker status --once --heartbeat-interval 10s --timeout 5s --metrics-exporters console", 3, HEARTBEAT),
    ("queue list", 1, [QUEUE]),
    ("observe queues", 1, [QUEUE]),
    ("observe workers", 1, [{"id": str, "active": int, "lastHeartbeat": TIME}]),
    ("observe dlq", 1, [{"queue": str, "taskId": str, "reason": str, "deadAt": TIME}]),
    ("top --once", 1, TOP),
    ("task show done", 1, TASK),
    ("task show failed", 1, TASK),
    ("task wait done", 1, TASK),
    ("task list", 1, {"items": [TASK], "nextOffset": maybe(int)}),
    ("task list --limit 1", 1, {"items": [TASK], "nextOffset": int}),
    (
        "task unique only-one",
        1,
        {
            "key": str,
            "items": [
                {
                    "queue": str,
                    "key": str,
                    "owner": str,
                    "claimedAt": TIME,
                    "expiresAt": maybe(TIME),
                    "refusals": int,
                    "duplicates": [{"taskId": str, "timestamp": TIME}],
                }
            ],
            "freed": int,
        },
    ),
    ("dlq list --queue dead --limit 1", 1, {"entries": [DEAD], "nextOffset": int}),
    ("dlq list --queue dead", 1, {"entries": [DEAD], "nextOffset": maybe(int)}),
    (
        "dlq show --queue default --id failed",
        1,
        {"queue": str, "deadAt": TIME, "reason": str, "meta": {"error": str}, "envelope": ENVELOPE},
    ),
    ("dlq replay --queue dead --dry-run", 1, {"queue": str, "dryRun": bool, "count": int, "entries": [DEAD]}),
    ("dlq purge --queue dead --dry-run", 1, {"queue": str, "dryRun": bool, "count": int}),
    ("health", 1, HEALTH),
    (f"tasks ls --app {APP}", 1, TASKS),
    ("config show", 1, [{"variable": str, "value": str, "source": str}]),
    ("worker revoke --task never-was --reason test", 1, replies(REVOKE)),
    ("worker inspect --include-revoked", 1, replies(INSPECT)),
    ("task revoke never-was-either", 1, replies(REVOKE)),
    ("worker pause --queue other", 1, replies(PAUSES)),
    ("worker resume --queue other", 1, replies(PAUSES)),
    ("worker concurrency 1", 1, replies({"was": int, "concurrency": int})),
    ("queue pause another", 1, [{"queue": str, "paused": bool}]),
    ("queue resume another", 1, [{"queue": str, "paused": bool}]),
    ("enqueue echo --args [1] --queue here", 1, {"id": str}),
    ("enqueue echo --args [1] --wait 30s", 1, TASK),
    ("queue purge here --yes", 1, {"queue": str, "deadLetters": bool, "count": int}),
    ("dlq replay --queue dead --limit 1 --yes", 1, {"queue": str, "dryRun": bool, "count": int, "entries": [DEAD]}),
    ("dlq purge --queue dead --yes", 1, {"queue": str, "dryRun": bool, "count": int}),
)


@pytest.mark.parametrize(("line", "count", "shape"), SHAPES, ids=[line for line, *_ in SHAPES])
def test_a_command_prints_the_documents_that_are_promised(crowd: Crowd, line: str, count: int, shape: Any) -> None:
    documents, _ = crowd.ask(line.split())
    assert [each for document in documents for each in misfits(document, shape)] == []
    assert len(documents) == count
    assert documents[0] != [], "a list without anything in it shows nothing"


def test_all_three_workers_answer(crowd: Crowd) -> None:
    for words in (["ping"], ["stats"], ["inspect"]):
        ((answers,), said) = crowd.ask(["worker", *words])
        assert ([each["workerId"] for each in answers], said) == (["w-1", "w-2", "w-3"], "")
        assert len({each["requestId"] for each in answers}) == 1
    beats, _ = crowd.ask(["worker", "status"])
    assert [(each["workerId"], each["stale"]) for each in beats] == [("w-1", False), ("w-2", False), ("w-3", False)]
    assert [each["id"] for each in crowd.ask(["observe", "workers"])[0][0]] == ["w-1", "w-2", "w-3"]


def test_one_of_them_is_followed(crowd: Crowd) -> None:
    following = crowd.shell.start("stem", "worker", "status", "--follow", "--json", "-w", "w-2", "--timeout", "0")
    assert following.stdout is not None
    try:
        beats = [json.loads(following.stdout.readline()) for _ in range(2)]
    finally:
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
    assert [misfits(each, HEARTBEAT) for each in beats] == [[], []]
    assert ([each["workerId"] for each in beats], following.returncode, said) == (["w-2", "w-2"], 130, "")


# ---------------------------------------------------------------- one dead, one stopped, one draining, one busy

SHORTLY = ["--timeout", "2s"]


@pytest.fixture(scope="module", params=STORES)
def troubled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """`w-1` is busy, `w-2` was killed, `w-3` is stopped, `w-4` drains."""
    folder = tmp_path_factory.mktemp(request.param)
    with nullcontext() if request.param == "sqlite" else own_server() as server:
        for made in make_crowd(request.param, folder, server.url if server is not None else None):
            workers = [made.fleet.start_process(queues=(f"q{number}",)) for number in range(1, 5)]
            made.busy("w-1", "q1")
            made.busy("w-4", "q4")
            workers[1].send(signal.SIGKILL)
            workers[1].wait()
            workers[2].send(signal.SIGSTOP)
            workers[3].shut_down(ShutdownMode.WARM)
            until(lambda made=made: made.beat("w-4")["extras"].get("state") == "draining")  # type: ignore[misc]
            until(lambda made=made: stale(made) == {"w-2", "w-3"}, 30.0)  # type: ignore[misc]
            yield made
            workers[2].send(signal.SIGCONT)


def stale(crowd: Crowd) -> set[str]:
    beats, _ = crowd.ask(["worker", "status"])
    return {beat["workerId"] for beat in beats if beat["stale"]}


@pytest.mark.parametrize("words", [["ping"], ["stats"], ["inspect"]])
def test_who_does_not_answer_makes_it_part_of_an_answer(troubled: Crowd, words: list[str]) -> None:
    ((answers,), said) = troubled.ask(["worker", *words, *SHORTLY], code=75)
    assert [(each["workerId"], each["status"]) for each in answers] == [("w-1", "ok"), ("w-4", "ok")]
    assert said.splitlines() == ["worker w-2 did not answer", "worker w-3 did not answer"]


def test_those_named_count_and_no_others(troubled: Crowd) -> None:
    troubled.ask(["worker", "ping", "-w", "w-1", "-w", "w-4", *SHORTLY])
    troubled.ask(["worker", "ping", "-w", "w-1", "-w", "w-3", *SHORTLY], code=75)
    assert troubled.ask(["worker", "ping", "-w", "w-2", "-w", "w-3", *SHORTLY], code=70)[0] == [[]]
    assert troubled.ask(["worker", "stats", "-w", "nobody", *SHORTLY], code=70)[0] == [[]]


def test_what_changes_workers_says_who_did_not_hear_it(troubled: Crowd) -> None:
    ((answers,), said) = troubled.ask(["worker", "revoke", "--task", "never-was", *SHORTLY], code=75)
    assert [misfits(each["payload"], REVOKE) for each in answers] == [[], []]
    assert "worker w-2 did not answer" in said
    ((answers,), _) = troubled.ask(["worker", "pause", "--queue", "unused", *SHORTLY], code=75)
    assert [misfits(each["payload"], PAUSES) for each in answers] == [[], []]
    ((queues,), said) = troubled.ask(["queue", "resume", "unused", *SHORTLY])
    assert (queues, "worker w-3 did not answer" in said) == ([{"queue": "unused", "paused": False}], True)


def test_a_status_shows_who_is_silent_and_who_leaves(troubled: Crowd) -> None:
    beats, said = troubled.ask(["worker", "status"])
    assert [misfits(each, HEARTBEAT) for each in beats] == [[]] * 4
    assert [each["stale"] for each in beats] == [False, True, True, False]
    assert [each["extras"]["state"] for each in beats] == ["ready", "ready", "ready", "draining"]
    text = troubled.shell.out("stem", "worker", "status")
    assert [("[stale " in line) for line in text.splitlines() if line.startswith("Worker ")] == [False, True, True, False]
    assert said == ""
    assert "worker w-9 has sent no heartbeat lately" in troubled.ask(["worker", "status", "-w", "w-9", "-w", "w-1"])[1]


def test_all_that_is_watched_marks_the_silent_ones(troubled: Crowd) -> None:
    ((found,), _) = troubled.ask(["top", "--once"])
    assert misfits(found, TOP) == []
    assert [(each["workerId"], each["stale"]) for each in found["workers"]] == [
        ("w-1", False),
        ("w-2", True),
        ("w-3", True),
        ("w-4", False),
    ]
    assert [(node["workers"], node["ready"]) for node in found["nodes"]] == [(4, 1)]
    assert {run["worker"] for run in found["running"]} == {"w-1", "w-4"}
    assert {queue["queue"]: queue["inflight"] for queue in found["queues"] if queue["queue"].startswith("q")} == {
        "q1": 1,
        "q2": 0,
        "q3": 0,
        "q4": 1,
    }
    ((workers,), _) = troubled.ask(["observe", "workers"])
    assert [each["stale"] for each in workers] == [False, True, True, False]


def test_a_draining_worker_says_that_it_leaves_already(troubled: Crowd) -> None:
    ((reply,),), _ = troubled.ask(["worker", "shutdown", "-w", "w-4", *SHORTLY])
    assert misfits(reply, {**REPLY, "payload": {"status": str, "mode": str, "active": int}}) == []
    assert (reply["payload"]["status"], reply["payload"]["active"]) == ("in-progress", 1)


# ---------------------------------------------------------------- processes of this host


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, RunningNode]]:
    with closing(Place(tmp_path_factory.mktemp("node"))) as place:
        node = place.start("--pidfile", str(place.directory / "n1.pid"))
        place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=30)
        yield place, node


@pytest.mark.parametrize(
    ("line", "shape"),
    [
        (
            "worker healthcheck --pidfile n1.pid",
            {"status": str, "node": str, "pidfile": str, "pid": int, "since": TIME, "uptimeSeconds": int},
        ),
        ("worker diagnose --pidfile n1.pid", CHECKS),
        ("doctor --pidfile n1.pid", CHECKS),
        (
            "worker multi status n1 --pidfile %n.pid",
            [{"node": str, "status": str, "pid": int, "pidfile": str, "logfile": str, "message": str, "exitCode": int}],
        ),
        ("observe metrics --node ADDRESS", METRICS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_of_this_host_is_shown_as_promised(node: tuple[Place, RunningNode], line: str, shape: Any) -> None:
    place, running = node
    done = place.shell.run("stem", *line.replace("ADDRESS", running.address).split(), "--json")
    assert "Traceback" not in done.stderr
    assert misfits(json.loads(done.stdout), shape) == []


def test_a_node_that_is_not_there_is_shown_as_promised(tmp_path: Path) -> None:
    done = Shell(tmp_path).run("stem", "worker", "healthcheck", "--pidfile", "n9.pid", "--json")
    assert done.returncode == 70
    assert misfits(json.loads(done.stdout), {"status": str, "node": str, "pidfile": str, "error": str}) == []


# ---------------------------------------------------------------- the schema of a database

SCHEMA = {"store": str, "schema": str, "version": maybe(int), "needed": int, "isUpToDate": bool}


def test_the_schema_of_a_database_is_shown_as_promised(tmp_path: Path) -> None:
    with own_postgres() as server:
        shell = Shell(tmp_path, {"STEM_BROKER_URL": server.url})
        before = shell.run("stem", "db", "status", "--json")
        assert (before.returncode, misfits(json.loads(before.stdout), [SCHEMA])) == (1, [])
        assert misfits(shell.json("stem", "db", "migrate", "--json"), [SCHEMA]) == []
        (after,) = shell.json("stem", "db", "status", "--json")
        assert (misfits(after, SCHEMA), after["isUpToDate"]) == ([], True)
        assert misfits(shell.json("stem", "db", "sql", "--json"), [{"schema": str, "from": int, "to": int, "sql": str}]) == []


# ---------------------------------------------------------------- all of them

NO_TABLE = {"stem bench", "stem completion"}  # figures of a machine, which have a test of their own; a script for a shell


def leaves(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The commands of a parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser.prog
    for group in groups:
        for each in group.choices.values():
            yield from leaves(each)


def test_no_command_is_left_out() -> None:
    here = [mark.args[1] for mark in test_a_node_of_this_host_is_shown_as_promised.pytestmark]
    lines = (
        [line for line, *_ in SHAPES] + [line for line, _ in here[0]] + ["worker shutdown", "db status", "db migrate", "db sql"]
    )
    missing = [
        command
        for command in sorted({*leaves(build_stem_parser())} - NO_TABLE)
        if not any(f"stem {line} ".startswith(f"{command} ") for line in lines)
    ]
    assert missing == []
