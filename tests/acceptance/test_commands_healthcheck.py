"""`stem worker healthcheck` and `stem worker diagnose`, on nodes that are well, starting, stopped and gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stem_cli.pid_file import PidFile, ProcessMark
from tests.fixtures.node import Place, RunningNode, eventually
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def check(shell: Shell, *words: str) -> tuple[int, dict[str, Any]]:
    done = shell.run("stem", "worker", "healthcheck", "--pidfile", "n.pid", "--json", *words)
    return done.returncode, json.loads(done.stdout)


def pid_file_of(node: RunningNode, folder: Path) -> PidFile:
    mark = ProcessMark.of(node.process.pid)
    assert mark is not None
    pid_file = PidFile(folder / "n.pid")
    pid_file.write(mark)
    return pid_file


# ---------------------------------------------------------------- healthcheck


def test_a_node_is_not_ready_until_it_is_and_says_why(place: Place) -> None:
    (place.directory / "slow.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nfrom jobs import app\n"
    )
    node = place.start(app="slow", is_ready=False)
    pid_file_of(node, place.directory)
    eventually(lambda: "no executor" in check(place.shell)[1].get("reason", ""), hint="the reason")
    code, found = check(place.shell)
    assert (code, found["status"], found["error"]) == (70, "error", "not-ready")
    assert found["reason"] == "n1-1: starting: no executor is ready"
    assert check(place.shell, "--liveness")[0] == 0
    place.open_gate()
    node.wait_ready()
    code, found = check(place.shell, "--node", "mail", "--logfile", "n1.log")
    assert code == 0
    assert found.keys() == {"status", "node", "pidfile", "logfile", "pid", "since", "uptimeSeconds"}
    assert (found["status"], found["node"], found["pidfile"], found["logfile"]) == ("ok", "mail", "n.pid", "n1.log")
    assert found["pid"] == node.process.pid
    assert isinstance(found["uptimeSeconds"], int)
    assert found["since"].endswith("Z")
    text = place.shell.out("stem", "worker", "healthcheck", "--pidfile", "n.pid")
    assert text.startswith(f"n: ok, pid {node.process.pid}, for ")
    done = place.shell.run("stem", "worker", "healthcheck", "--pidfile", "n.pid", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_node_writes_its_own_pid_file_and_takes_it_away(place: Place) -> None:
    node = place.start("--pidfile", "n.pid")
    code, found = check(place.shell)
    assert (code, found["pid"]) == (0, node.process.pid)
    done = place.shell.run("stem-node", "--app", "jobs", "--admin", "off", "--pidfile", "n.pid")
    assert (done.returncode, f"process {node.process.pid} runs already" in done.stderr) == (70, True)
    assert check(place.shell)[0] == 0
    node.send(signal.SIGTERM)
    assert node.wait(10) == 0
    assert check(place.shell)[1]["error"] == "pidfile-missing"
    PidFile(place.directory / "n.pid").write(ProcessMark(node.process.pid, 1, "0" * 36))
    node = place.start("--pidfile", "n.pid")
    assert check(place.shell)[1]["pid"] == node.process.pid
    done = place.shell.run("stem-node", "--app", "jobs", "--admin", "off", "--pidfile", "/nowhere/n.pid")
    assert (done.returncode, "/nowhere" in done.stderr) == (70, True)


def test_a_node_that_is_stopped_does_not_answer(place: Place) -> None:
    node = place.start()
    pid_file_of(node, place.directory)
    node.send(signal.SIGSTOP)
    code, found = check(place.shell, "--timeout", "200ms")
    assert (code, found["error"], found["reason"]) == (70, "not-ready", "it did not answer within 200ms")
    assert check(place.shell, "--liveness")[0] == 0
    node.send(signal.SIGCONT)


def test_a_process_without_pages_is_alive_and_not_ready(place: Place) -> None:
    node = place.start("--admin", "off", is_ready=False)
    pid_file_of(node, place.directory)
    code, found = check(place.shell)
    assert (code, found["error"], "--admin off" in found["reason"]) == (70, "not-ready", True)
    assert check(place.shell, "--liveness")[0] == 0


@pytest.fixture
def dead() -> ProcessMark:
    process = subprocess.Popen(["sleep", "600"])
    mark = ProcessMark.of(process.pid)
    assert mark is not None
    process.kill()
    process.wait()
    return mark


def test_what_is_wrong_with_a_process_has_a_name(shell: Shell, dead: ProcessMark) -> None:
    assert check(shell) == (70, {"status": "error", "node": "n", "pidfile": "n.pid", "error": "pidfile-missing"})
    (shell.directory / "n.pid").write_text("nonsense")
    code, found = check(shell)
    assert (code, found["error"], "no pid file" in found["message"]) == (70, "invalid-pid", True)
    PidFile(shell.directory / "n.pid").write(dead)
    code, found = check(shell, "--liveness")
    assert (code, found["error"], found["pid"]) == (70, "process-not-running", dead.pid)
    PidFile(shell.directory / "n.pid").write(ProcessMark(os.getpid(), dead.started, dead.boot))
    assert check(shell)[1]["error"] == "process-not-running", "another has its pid now"
    done = shell.run("stem", "worker", "healthcheck", "--pidfile", "n.pid", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (70, "", "")


def test_a_healthcheck_without_a_pid_file_is_64(shell: Shell) -> None:
    assert shell.code("stem", "worker", "healthcheck")[0] == 64


# ---------------------------------------------------------------- diagnose


def diagnose(shell: Shell, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The checks by name; of several of one name the worst."""
    done = shell.run("stem", "worker", "diagnose", "--json", *words)
    found = json.loads(done.stdout)
    assert (found["status"] == "ok") == (done.returncode == 0)
    order = ["info", "warning", "error"]
    for each in found["checks"]:
        assert each["ok"] == (each["level"] == "info")
        assert "remedy" in each or each["ok"]
    return done.returncode, {each["check"]: each for each in sorted(found["checks"], key=lambda each: order.index(each["level"]))}


def test_nothing_is_wrong_with_a_node_that_is_well(place: Place) -> None:
    node = place.start()
    pid_file_of(node, place.directory)
    (place.directory / "env").write_text(f"STEM_BROKER_URL={place.url}\nSTEM_WORKER_COMMAND=stem-node\n")
    words = ("--pidfile", "n.pid", "--logfile", "n1.log", "--env-file", "env")
    code, found = diagnose(place.shell, *words)
    assert code == 0
    assert {name: each["level"] for name, each in found.items()} == dict.fromkeys(
        [
            *("pidfile-option", "pid-directory", "pid-file", "pid-parse", "process", "ready", "log-directory", "log-file"),
            *("environment-file", "worker-command", "settings", "broker", "backend", "clock", "file-descriptors"),
        ],
        "info",
    )
    lines = place.shell.out("stem", "worker", "diagnose", *words).splitlines()
    assert all(line.startswith("[OK ] ") for line in lines)
    assert f"[OK ] pid-parse: pid {node.process.pid}" in lines


def test_a_process_that_is_gone_is_an_error_and_what_may_be_missing_a_warning(shell: Shell, dead: ProcessMark) -> None:
    PidFile(shell.directory / "n.pid").write(dead)
    shell.out("stem", "enqueue", "x")
    code, found = diagnose(shell, "--pidfile", "n.pid", "--logfile", "n.log")
    assert code == 70
    assert [found[each]["level"] for each in ("process", "log-file", "worker-command", "broker")] == [
        "error",
        "warning",
        "warning",
        "info",
    ]
    text = shell.run("stem", "worker", "diagnose", "--pidfile", "n.pid").stdout
    assert f"[ERR] process: process {dead.pid} does not run any more\n       see the end of its log file" in text
    (shell.directory / "n.pid").unlink()
    code, found = diagnose(shell, "--pidfile", "n.pid")
    assert (code, found["pid-file"]["level"]) == (0, "warning")
    code, found = diagnose(shell)
    assert (code, found["pidfile-option"]["level"]) == (0, "warning")
    (shell.directory / "n.pid").write_text("1")
    code, found = diagnose(shell, "--pidfile", "n.pid")
    assert (code, found["pid-parse"]["level"]) == (70, "error")


def test_folders_that_are_not_there_are_errors(shell: Shell) -> None:
    shell.out("stem", "enqueue", "x")
    code, found = diagnose(shell, "--pidfile", "no/n.pid", "--logfile", "nor/n.log")
    assert (code, found["pid-directory"]["level"], found["log-directory"]["level"]) == (70, "error", "error")


def test_every_variable_that_does_not_parse_is_named_and_so_is_one_that_nobody_reads(shell: Shell) -> None:
    shell.environ |= {"STEM_CONCURRENCY": "many", "STEM_DRAIN_TIMEOUT": "soon", "STEM_BROKR_URL": "sqlite:///x"}
    done = shell.run("stem", "worker", "diagnose")
    assert done.returncode == 70
    for part in (
        "[ERR] settings: STEM_CONCURRENCY is 'many'",
        "[ERR] settings: STEM_DRAIN_TIMEOUT is 'soon'",
        "did you mean STEM_BROKER_URL?",
    ):
        assert part in done.stdout
    assert "broker:" not in done.stdout


def test_an_environment_file_with_a_bad_line_is_an_error(shell: Shell) -> None:
    (shell.directory / "env").write_text("STEM_CONCURRENCY=2\nsecret\n")
    code, found = diagnose(shell, "--env-file", "env")
    assert (code, found["environment-file"]["message"]) == (70, "env:2: not KEY=VALUE")
    assert diagnose(shell, "--env-file", "nowhere")[1]["environment-file"]["level"] == "error"


def test_a_store_that_cannot_be_reached_is_an_error_with_a_remedy(shell: Shell) -> None:
    code, found = diagnose(shell, "--broker", "redis://127.0.0.1:1/0")
    assert (code, found["broker"]["level"]) == (70, "error")
    assert found["broker"]["remedy"]


def test_a_limit_of_files_that_is_too_low_is_an_error(shell: Shell) -> None:
    shell.out("stem", "enqueue", "x")
    shell.environ["STEM_CONCURRENCY"] = "50"
    process = shell.start("stem", "worker", "diagnose", "--json", prefix=["prlimit", "--nofile=256:256"])
    out, _ = process.communicate(timeout=60)
    (found,) = [each for each in json.loads(out)["checks"] if each["check"] == "file-descriptors"]
    assert (process.returncode, found["level"], found["facts"]) == (70, "error", {"soft": 256, "hard": 256, "needed": 464})
    assert "ulimit -n" in found["remedy"]
