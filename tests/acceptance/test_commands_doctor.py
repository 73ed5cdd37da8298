"""`stem doctor`: what is wrong, where it is looked for, and what to do about it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Settings, Stem
from stem_cli.pid_file import PidFile, ProcessMark
from tests.fixtures.certificates import Authority, secure, secure_server
from tests.fixtures.node import Place, eventually
from tests.fixtures.redis_server import own_server
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def examine(shell: Shell, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The checks by name."""
    done = shell.run("stem", "doctor", "--json", *words)
    found = json.loads(done.stdout)
    assert (found["status"] == "ok") == (done.returncode == 0)
    for each in found["checks"]:
        assert each["ok"] == (each["level"] == "info")
        assert each["ok"] or each["remedy"].strip(), each
        assert "\n" not in each["message"] + each.get("remedy", "")
    return done.returncode, {each["check"]: each for each in found["checks"]}


@pytest.fixture
def ours(place: Place) -> Place:
    """A place whose store the commands find."""
    place.environ["STEM_BROKER_URL"] = place.url
    return place


def test_nothing_is_wrong_where_a_node_works(ours: Place) -> None:
    node = ours.start()
    mark = ProcessMark.of(node.process.pid)
    assert mark is not None
    PidFile(ours.directory / "n.pid").write(mark)
    eventually(lambda: ours.app.stores.heartbeats.list_heartbeats())
    code, found = examine(ours.shell, "--pidfile", "n.pid", "--logfile", "n1.log", "--app", "jobs")
    assert code == 0
    assert {name for name, each in found.items() if not each["ok"]} == set()
    assert found.keys() >= {
        *("settings", "process", "ready", "versions", "broker", "backend", "revocations", "locks", "rate_limits", "heartbeats"),
        *("control", "clock", "leases", "file-descriptors", "workers", "queues", "dead-letters", "application"),
    }
    assert found["versions"]["facts"].keys() >= {"python", "stem-actors", "sqlite", "redis", "servers"}
    assert found["leases"]["facts"] == {"visibilityTimeout": 30.0, "drainTimeout": 20.0, "softGracePeriod": 5.0}
    assert found["workers"]["facts"] == {"alive": 1, "unwell": {}}
    assert found["application"]["facts"] == {"tasks": 9, "queues": ["default"]}
    text = ours.shell.out("stem", "doctor")
    assert all(line.startswith("[OK ] ") for line in text.splitlines())


def test_tasks_that_wait_where_nobody_works_and_dead_letters_are_warnings(ours: Place) -> None:
    ours.start()
    eventually(lambda: ours.app.stores.heartbeats.list_heartbeats())
    for queue in ("mail", "mail", "slow"):
        ours.app.enqueue_by_name("jobs.add", [1, 2], queue=queue)
    lost = ours.app.enqueue_by_name("jobs.fail", max_retries=0)
    eventually(lambda: lost.status().state.is_final)
    code, found = examine(ours.shell)
    assert code == 0
    assert {name for name, each in found.items() if not each["ok"]} == {"queues", "dead-letters"}
    assert found["queues"]["facts"] == {"withoutWorkers": {"mail": 2, "slow": 1}}
    assert "--queue mail --queue slow" in found["queues"]["remedy"]
    assert found["dead-letters"]["facts"] == {"dead": {"default": 1}}
    text = ours.shell.out("stem", "doctor")
    assert "[WARN] dead-letters: 1 in default\n       look why: stem dlq list --queue default" in text


def test_a_worker_that_is_not_heard_of_is_a_warning_and_its_queues_count_as_left(ours: Place) -> None:
    ours.environ["STEM_HEARTBEAT_INTERVAL"] = "1s"
    node = ours.start()
    eventually(lambda: ours.app.stores.heartbeats.list_heartbeats())
    node.send_group(signal.SIGSTOP)
    for pid in node.everything():
        os.kill(pid, signal.SIGSTOP)
    ours.app.enqueue_by_name("jobs.add", [1, 2])
    eventually(lambda: not examine(ours.shell)[1]["workers"]["ok"], hint="its silence being noticed")
    _, found = examine(ours.shell)
    assert found["workers"]["facts"]["unwell"].keys() == {"n1-1"}
    assert found["queues"]["facts"] == {"withoutWorkers": {"default": 1}}


def test_a_lease_shorter_than_what_a_leaving_node_may_take_is_a_warning(ours: Place) -> None:
    ours.app.enqueue_by_name("x")
    code, found = examine(ours.shell)
    assert (code, found["leases"]["ok"]) == (0, True)
    ours.environ["STEM_DRAIN_TIMEOUT"] = "2m"
    code, found = examine(ours.shell)
    assert (code, found["leases"]["level"]) == (0, "warning")
    assert "--visibility-timeout to 2m5s" in found["leases"]["remedy"]


def test_settings_that_cannot_be_read_are_64_and_stores_are_left_alone(shell: Shell) -> None:
    shell.environ["STEM_CONCURRENCY"] = "many"
    code, found = examine(shell)
    assert (code, found["settings"]["level"], "broker" in found) == (64, "error", False)
    assert not (shell.directory / "stem.db").exists()


def test_a_store_that_is_not_there_is_an_error_and_looking_makes_none(shell: Shell) -> None:
    code, found = examine(shell)
    assert (code, found["broker"]["level"], "queues" in found) == (70, "error", False)
    assert os.listdir(shell.directory) == []
    code, found = examine(shell, "--broker", "redis://:secret@127.0.0.1:1/0")
    assert (code, found["broker"]["level"]) == (70, "error")
    assert "secret" not in json.dumps(found)


def test_an_application_that_cannot_be_imported_is_an_error_and_what_it_prints_is_not_data(ours: Place) -> None:
    ours.app.enqueue_by_name("x")
    code, found = examine(ours.shell, "--app", "no.such.module")
    assert (code, found["application"]["level"]) == (70, "error")
    (ours.directory / "loud.py").write_text("from stem_actors import Stem\nprint('hello')\napp = Stem()\n")
    code, found = examine(ours.shell, "--app", "loud")
    assert (code, found["application"]["level"], "no tasks" in found["application"]["message"]) == (0, "warning", True)


# ---------------------------------------------------------------- Redis


def test_a_redis_server_is_described_and_what_it_may_lose_is_a_warning(shell: Shell) -> None:
    with own_server() as server, Stem(settings=Settings(broker_url=server.url)) as app:
        app.enqueue_by_name("x", queue="mail")
        code, found = examine(shell, "--broker", server.url)
        assert code == 0
        assert {name for name, each in found.items() if not each["ok"]} == {"broker", "queues"}
        assert "appendonly yes" in found["broker"]["remedy"]
        assert found["broker"]["facts"]["eviction"] == "noeviction"
        assert found["versions"]["facts"]["servers"]["broker"] == found["broker"]["facts"]["version"]
    with own_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        code, found = examine(shell, "--broker", server.url)
        assert (code, found["broker"]["level"]) == (70, "error")
        assert "maxmemory-policy noeviction" in found["broker"]["remedy"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "shop-ca")


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[str]:
    port, options = secure_server(authority, *authority.issue("server", "DNS:localhost"), "no")
    with secure(*options, "--appendonly", "yes"):
        yield f"rediss://localhost:{port}/0"


def test_a_tls_handshake_is_told_with_its_certificate(shell: Shell, authority: Authority, secured: str) -> None:
    shell.environ["STEM_TLS_CA_CERT"] = str(authority.cert)
    code, found = examine(shell, "--broker", secured)
    assert (code, found["broker-tls"]["level"]) == (0, "warning"), "the certificate ends in two days"
    facts = found["broker-tls"]["facts"]
    assert facts["protocol"].startswith("TLSv1.")
    assert "localhost" in facts["names"]
    assert "shop-ca" in facts["issuer"]
    assert "renew" in found["broker-tls"]["remedy"]


def test_a_tls_handshake_that_fails_or_trusts_anybody_is_told_with_its_remedy(shell: Shell, secured: str) -> None:
    code, found = examine(shell, "--broker", secured)
    assert (code, found["broker"]["level"], "broker-tls" in found) == (70, "error", False)
    assert "STEM_TLS_CA_CERT" in found["broker"]["remedy"]
    assert found["broker"]["facts"]["tls"]["certificate"]["issuer"]
    shell.environ["STEM_TLS_ALLOW_INSECURE"] = "true"
    code, found = examine(shell, "--broker", secured)
    assert (code, found["broker-tls"]["level"]) == (0, "warning")
    assert "STEM_TLS_ALLOW_INSECURE" in found["broker-tls"]["remedy"]
