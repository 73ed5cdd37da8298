"""The commands as a user runs them, on an SQLite file, where no worker is needed."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from stem_actors.clock import SystemClock
from tests.fixtures import hand_worker
from tests.fixtures.shell import MODULES, Shell

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def app(shell: Shell) -> Iterator[Stem]:
    """The application whose database the commands find by default."""
    with Stem(settings=Settings(broker_url=f"sqlite:///{shell.directory}/stem.db")) as made:
        yield made


def add(a: int, b: int) -> int:
    return a + b


# ---------------------------------------------------------------- enqueue, task


def test_a_task_goes_in_and_is_seen_waiting(shell: Shell) -> None:
    task_id = shell.out("stem", "enqueue", "shop.add", "--args", "[1, 2]").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", task_id)
    assert shell.json("stem", "task", "show", task_id, "--json") == {
        "id": task_id,
        "state": "queued",
        "attempt": 0,
        "payload": None,
        "error": None,
        "meta": {},
        "createdAt": None,
        "updatedAt": None,
    }
    assert "queued" in shell.out("stem", "task", "show", task_id)
    depth = shell.json("stem", "queue", "list", "--json")
    assert [{**each, "oldestMs": None} for each in depth] == [
        {"queue": "default", "pending": 1, "inflight": 0, "delayed": 0, "dead": 0, "oldestMs": None, "paused": False}
    ]
    assert isinstance(depth[0]["oldestMs"], int)


def test_what_was_typed_is_what_the_worker_gets(shell: Shell, app: Stem) -> None:
    options = [
        "--queue",
        "slow",
        "--priority",
        "7",
        "--header",
        "tenant=a=b",
        "--max-retries",
        "0",
        "--task-id",
        "mine",
        "--expires",
        "1h",
    ]
    sent = shell.json("stem", "--json", "enqueue", "shop.add", "--args", "[1]", "--kwargs", '{"b": [null, "é"]}', *options)
    assert sent == {"id": "mine"}
    envelope = hand_worker.take(app, "slow").envelope
    assert (envelope.id, envelope.name, envelope.args, envelope.kwargs) == ("mine", "shop.add", [1], {"b": [None, "é"]})
    assert (envelope.priority, envelope.max_retries, envelope.headers) == (7, 0, {"tenant": "a=b"})
    assert envelope.expires_at == pytest.approx(envelope.enqueued_at + 3600)


def test_a_task_for_later_is_delayed(shell: Shell, app: Stem) -> None:
    tomorrow = dt.datetime.fromtimestamp(SystemClock().now() + 86400, dt.UTC).isoformat()
    shell.out("stem", "enqueue", "t", "--countdown", "1h")
    shell.out("stem", "enqueue", "t", "--eta", tomorrow, "--expires", tomorrow)
    (depth,) = app.stores.broker.depths()
    assert (depth.pending, depth.delayed) == (0, 2)


def test_enqueue_takes_the_options_of_a_task_that_the_application_knows(shell: Shell, app: Stem) -> None:
    write_shop(shell)
    shell.out("stem", "enqueue", "shop.charge", "--app", "shop")
    assert hand_worker.take(app, "billing").envelope.max_retries == 5


def test_the_application_says_where_its_tasks_wait_unless_a_flag_does(shell: Shell) -> None:
    (shell.directory / "elsewhere.py").write_text("from stem_actors import Stem\napp = Stem('sqlite:///own.db')\n")
    shell.out("stem", "enqueue", "t", "--app", "elsewhere")
    assert (shell.directory / "own.db").exists()
    shell.out("stem", "enqueue", "t", "--app", "elsewhere", "--broker", "sqlite:///flag.db")
    assert (shell.directory / "flag.db").exists()
    assert not (shell.directory / "stem.db").exists()


def test_the_end_of_a_task_is_shown(shell: Shell, app: Stem) -> None:
    good = app.task(name="shop.add")(add).enqueue(1, 2)
    hand_worker.run(app)
    bad = app.enqueue_by_name("shop.add", [1])
    hand_worker.fail(app)
    shown = shell.json("stem", "task", "show", good.id, "--json")
    assert (shown["state"], shown["payload"], shown["error"]) == ("succeeded", 3, None)
    assert (shown["meta"]["task"], shown["meta"]["queue"]) == ("shop.add", "default")
    assert ISO.fullmatch(shown["createdAt"])
    assert ISO.fullmatch(shown["updatedAt"])
    error = shell.json("stem", "task", "show", bad.id, "--json")["error"]
    assert error == {"type": "ValueError", "message": "no such thing", "retryable": False, "meta": {}, "stack": "Traceback …"}
    assert "ValueError: no such thing" in shell.out("stem", "task", "show", bad.id)


def test_waiting_exits_by_how_the_task_ended(shell: Shell, app: Stem) -> None:
    good = app.task(name="shop.add")(add).enqueue(1, 2)
    hand_worker.run(app)
    bad = app.enqueue_by_name("shop.add", [1])
    hand_worker.fail(app)
    cancelled = app.enqueue_by_name("shop.add", [1])
    hand_worker.cancel(app)
    waiting = app.enqueue_by_name("shop.add", [1])
    assert shell.out("stem", "task", "wait", good.id) == "3\n"
    assert shell.code("stem", "task", "wait", bad.id) == (1, f"task {bad.id} failed: ValueError: no such thing\n")
    assert shell.code("stem", "task", "wait", cancelled.id)[0] == 1
    code, text = shell.code("stem", "task", "wait", waiting.id, "--timeout", "10ms")
    assert (code, "has not ended" in text) == (70, True)


def test_enqueue_waits_for_the_result(shell: Shell, app: Stem) -> None:
    app.task(name="shop.add")(add)
    waiting = shell.start("stem", "enqueue", "shop.add", "--args", "[1, 2]", "--wait", "30s")
    assert waiting.stdout is not None
    task_id = waiting.stdout.readline().strip()
    assert hand_worker.run(app).envelope.id == task_id
    out, err = waiting.communicate(timeout=60)
    assert (out, err, waiting.returncode) == ("3\n", "", 0)


def test_an_id_is_used_once(shell: Shell) -> None:
    shell.out("stem", "enqueue", "t", "--task-id", "once")
    code, text = shell.code("stem", "enqueue", "t", "--task-id", "once")
    assert (code, "once" in text) == (64, True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--args", "{}"], "--args"),
        (["--args", "[1"], "--args"),
        (["--kwargs", "[]"], "--kwargs"),
        (["--header", "novalue"], "--header"),
        (["--countdown", "soon"], "--countdown"),
        (["--eta", "tomorrow"], "--eta"),
        (["--expires", "soon"], "--expires"),
        (["--task-id", "a b"], "a b"),
        (["--priority", "high"], "--priority"),
        (["--max-retries", "-1"], "max_retries"),
        (["--wait", "1.5"], "--wait"),
        (["--broker", "memory://"], "memory broker"),
    ],
)
def test_bad_arguments_enqueue_nothing(shell: Shell, words: Sequence[str], hint: str) -> None:
    code, text = shell.code("stem", "enqueue", "t", *words)
    assert (code, hint in text) == (64, True)
    assert list(shell.directory.iterdir()) == []


# ---------------------------------------------------------------- dead letters


def test_a_queue_without_dead_letters_is_empty_and_fine(shell: Shell) -> None:
    shell.out("stem", "enqueue", "t")
    assert shell.json("stem", "dlq", "list", "--queue", "default", "--json") == {"entries": [], "nextOffset": None}
    done = shell.run("stem", "dlq", "list", "--queue", "default")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no dead letters" in done.stderr
    assert shell.code("stem", "dlq", "show", "--queue", "default", "--id", "nobody")[0] == 1


def test_dead_letters_are_listed_and_shown(shell: Shell, app: Stem) -> None:
    ids = [app.enqueue_by_name("billing.charge", [n], {"k": 1}).id for n in range(3)]
    for _ in ids:
        hand_worker.fail(app)
    page = shell.json("stem", "dlq", "list", "-q", "default", "--limit", "2", "--json")
    assert page["nextOffset"] == 2
    assert all(ISO.fullmatch(entry.pop("deadAt")) for entry in page["entries"])
    wanted = {"task": "billing.charge", "queue": "default", "attempt": 1, "deaths": 0, "reason": "max-retries-exhausted"}
    assert page["entries"] == [{"id": task_id, **wanted} for task_id in (ids[2], ids[1])]
    done = shell.run("stem", "dlq", "list", "-q", "default", "--limit", "2")
    assert [line.split(" | ")[1].strip() for line in done.stdout.splitlines()] == ["Task", "billing.charge", "billing.charge"]
    assert "--offset 2" in done.stderr
    rest = shell.json("stem", "dlq", "list", "-q", "default", "--offset", "2", "--json")
    assert ([entry["id"] for entry in rest["entries"]], rest["nextOffset"]) == ([ids[0]], None)

    shown = shell.json("stem", "dlq", "show", "-q", "default", "--id", ids[0])
    assert (shown["queue"], shown["reason"], shown["meta"]) == (
        "default",
        "max-retries-exhausted",
        {"error": "ValueError: no such thing"},
    )
    assert ISO.fullmatch(shown["envelope"].pop("enqueuedAt"))
    assert shown["envelope"] == {
        "id": ids[0],
        "name": "billing.charge",
        "args": [0],
        "kwargs": {"k": 1},
        "headers": {},
        "notBefore": None,
        "expiresAt": None,
        "priority": 0,
        "attempt": 1,
        "deaths": [],
        "replayCount": 0,
        "lastReplayAt": None,
        "maxRetries": 3,
        "visibilityTimeout": None,
        "queue": "default",
        "meta": {},
    }


def test_since_leaves_out_older_dead_letters(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    hand_worker.fail(app)
    for since, count in (("2020-01-01", 1), ("2999-01-01T00:00:00Z", 0)):
        assert len(shell.json("stem", "dlq", "list", "-q", "default", "--since", since, "--json")["entries"]) == count
    assert shell.code("stem", "dlq", "list", "-q", "default", "--since", "lately")[0] == 64


# ---------------------------------------------------------------- tasks, workers, settings


def write_shop(shell: Shell) -> None:
    (shell.directory / "shop.py").write_text(
        "from stem_actors import Stem\n"
        "app = Stem()\n"
        "@app.task(queue='billing', max_retries=5, tags=['billing'], idempotent=True)\n"
        "def charge():\n    'Take the money.'\n"
        "@app.task\n"
        "async def refund(): pass\n"
    )


def test_the_tasks_of_an_application_are_listed(shell: Shell) -> None:
    write_shop(shell)
    charge, refund = shell.json("stem", "tasks", "ls", "--app", "shop:app", "--json")
    assert {key: charge[key] for key in ("name", "description", "idempotent", "tags", "queue", "maxRetries", "priority")} == {
        "name": "shop.charge",
        "description": "Take the money.",
        "idempotent": True,
        "tags": ["billing"],
        "queue": "billing",
        "maxRetries": 5,
        "priority": 0,
    }
    assert (refund["queue"], refund["maxRetries"], refund["isAsync"]) == ("default", 3, True)
    assert shell.out("stem", "tasks", "ls", "-A", "shop").splitlines()[0].split(" | ")[0].strip() == "NAME"
    shell.environ = {"STEM_TASKS": "shop"}
    assert len(shell.json("stem", "tasks", "ls", "--json")) == 2
    assert not (shell.directory / "stem.db").exists()


def test_without_an_application_there_are_no_tasks_to_list(shell: Shell) -> None:
    done = shell.run("stem", "tasks", "ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert "--app" in done.stderr


@pytest.mark.parametrize("name", ["nowhere", "broken", "shop:charge", "shop:nothing", "not-python"])
def test_an_application_that_cannot_be_had_is_a_configuration_error(shell: Shell, name: str) -> None:
    write_shop(shell)
    (shell.directory / "broken.py").write_text("1 / 0\n")
    code, text = shell.code("stem", "tasks", "ls", "--app", name)
    assert (code, name.split(":")[0] in text) == (64, True)


def test_heartbeats_are_shown_one_line_each(shell: Shell, app: Stem) -> None:
    now = SystemClock().now()
    for name, age in (("web-2", 1), ("web-1", 45)):
        app.stores.heartbeats.put_heartbeat(
            name,
            {
                "worker_id": name,
                "namespace": "stem",
                "timestamp": round((now - age) * 1000),
                "isolate_count": 2,
                "executor_count": 2,
                "inflight": 3,
                "last_lease_renewal": None,
                "version": "1",
                "queues": [{"name": "default", "inflight": 3}],
                "extras": {"host": "h1", "pid": 42, "subscriptions": {"queues": ["default"]}, "state": "ready"},
            },
            60,
        )
    first, second = map(json.loads, shell.out("stem", "worker", "status", "--once", "--json").splitlines())
    assert (first["workerId"], second["workerId"]) == ("web-1", "web-2")
    assert ISO.fullmatch(first.pop("timestamp"))
    assert first == {
        "workerId": "web-1",
        "namespace": "stem",
        "isolateCount": 2,
        "executorCount": 2,
        "inflight": 3,
        "lastLeaseRenewal": None,
        "version": "1",
        "queues": [{"name": "default", "inflight": 3}],
        "extras": {"host": "h1", "pid": 42, "subscriptions": {"queues": ["default"]}, "state": "ready"},
        "stale": True,
    }
    text = shell.out("stem", "worker", "status")
    assert re.search(
        r"Worker web-1 \(namespace: stem\) @ \S+Z isolate=2 inflight=3 \[stale [4-9]\ds\]\n  state: ready\n  queues: default\n",
        text,
    )
    assert re.search(r"Worker web-2 .* inflight=3\n", text)
    assert "stale" not in shell.out("stem", "worker", "status", "--heartbeat-interval", "5m")
    assert "web-1" not in shell.out("stem", "worker", "status", "-w", "web-2")


def test_no_workers_are_no_error(shell: Shell) -> None:
    shell.out("stem", "enqueue", "t")
    done = shell.run("stem", "worker", "status")
    assert (done.returncode, done.stdout, "no worker" in done.stderr) == (0, "", True)


def test_settings_are_shown_with_their_sources_and_without_their_secrets(shell: Shell) -> None:
    shell.environ = {"STEM_CONCURRENCY": "7", "STEM_RESULT_TTL": "90m"}
    shown = {each["variable"]: each for each in shell.json("stem", "config", "show", "--json", "--namespace", "shop")}
    assert shown["STEM_CONCURRENCY"] == {"variable": "STEM_CONCURRENCY", "value": "7", "source": "STEM_CONCURRENCY"}
    assert shown["STEM_NAMESPACE"] == {"variable": "STEM_NAMESPACE", "value": "shop", "source": "--namespace"}
    assert shown["STEM_DEAD_LETTER_TTL"] == {"variable": "STEM_DEAD_LETTER_TTL", "value": "30d", "source": "default"}
    assert shown["STEM_RESULT_TTL"]["value"] == "90m"


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    "words",
    [
        ["queue", "list"],
        ["task", "show", "x"],
        ["task", "wait", "x"],
        ["dlq", "list", "-q", "a"],
        ["dlq", "show", "-q", "a", "--id", "x"],
        ["worker", "status"],
    ],
)
def test_looking_does_not_make_a_database(shell: Shell, words: Sequence[str]) -> None:
    code, text = shell.code("stem", *words)
    assert code == 70
    assert "there is no database stem.db" in text
    assert list(shell.directory.iterdir()) == []


def test_the_database_is_found_by_variable_flag_and_file(shell: Shell) -> None:
    url = f"sqlite:///{shell.directory}/elsewhere.db"
    shell.out("stem", "--broker", url, "enqueue", "t")
    shell.environ = {"STEM_BROKER_URL": url}
    assert shell.json("stem", "queue", "list", "--json")[0]["pending"] == 1
    (shell.directory / "stem.toml").write_text(f'broker_url = "{url}"\n')
    shell.environ = {}
    assert shell.json("stem", "queue", "list", "--json", "--config", "stem.toml")[0]["pending"] == 1


def test_a_setting_that_does_not_parse_is_named(shell: Shell) -> None:
    shell.environ = {"STEM_VISIBILITY_TIMEOUT": "soon"}
    code, text = shell.code("stem", "queue", "list")
    assert (code, "STEM_VISIBILITY_TIMEOUT is 'soon'" in text) == (64, True)


def test_a_reader_that_has_seen_enough_is_no_error(shell: Shell, app: Stem) -> None:
    for n in range(50):
        app.enqueue_by_name("t", queue=f"queue-{n:0100}")
    reading = shell.start("stem", "queue", "list")
    assert reading.stdout is not None
    reading.stdout.close()
    _, err = reading.communicate(timeout=60)
    assert (reading.returncode, err) == (0, "")


def test_an_interrupt_ends_a_wait_quietly(shell: Shell) -> None:
    waiting = shell.start("stem", "enqueue", "t", "--wait")
    assert waiting.stdout is not None
    assert waiting.stdout.readline()  # the id: from here on it waits
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("command", MODULES)
def test_commands_say_their_version(shell: Shell, command: str) -> None:
    assert shell.out(command, "--version").startswith(f"{command} ")


def test_a_node_without_tasks_does_not_start(shell: Shell) -> None:
    code, text = shell.code("stem-node")
    assert (code, "--app" in text) == (64, True)
