"""`stem-chaos` as an operator runs it: a suite on each broker, a verdict by exit code, reports, Ctrl-C, one's own tasks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from stem_chaos.history import Phase, Recorder, RunFacts, Verb, write_facts
from tests.fixtures.redis_server import need_server
from tests.fixtures.waiting import until

PROGRAM = Path(sysconfig.get_path("scripts")) / "stem-chaos"
ROOT = Path(__file__).parents[2]
HELD, BROKEN, USAGE, FAILED, INTERRUPTED = 0, 1, 64, 70, 130
A_MINUTE = 60.0


def environ() -> dict[str, str]:
    """An operator's: our packages are found, no setting is made."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTEST_"))}
    return {**kept, "NO_COLOR": "1"}


def command(folder: Path, *words: str, timeout: float = 150.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words], cwd=folder, env=environ(), text=True, capture_output=True, timeout=timeout, check=False
    )


def processes_of(directory: Path) -> list[int]:
    """Whoever takes part in a run."""
    mark, found = f"STEM_CHAOS_DIRECTORY={directory}".encode(), []
    for pid in psutil.pids():
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


# ---------------------------------------------------------------- suites


@pytest.mark.timeout(170)
@pytest.mark.parametrize("broker", ["redis", *(pytest.param(name, marks=pytest.mark.soak) for name in ("sqlite", "postgres"))])
def test_the_smoke_suite_holds_and_says_what_it_saw(broker: str, tmp_path: Path) -> None:
    if broker == "redis":
        need_server()
    run = tmp_path / "run"
    done = command(tmp_path, "run", "smoke", "--broker", broker, "--directory", str(run))
    assert done.returncode == HELD, done.stdout + done.stderr
    seed = re.search(r"suite smoke on a \w+ broker of its own, seed (\d+), history in", done.stderr)
    assert seed is not None, done.stderr
    assert f"--replay {seed[1]}" in done.stdout
    report = json.loads((run / "report.json").read_text())
    assert report["facts"]["seed"] == int(seed[1])
    assert {finding["validity"] for finding in report["findings"]} <= {"valid", "unknown"}
    accepted = next(finding for finding in report["findings"] if finding["checker"] == "no-loss")["figures"]["accepted"]
    assert accepted > 1000
    suite = ElementTree.parse(run / "report.xml").getroot()
    assert suite.find(".//failure") is None
    assert "<html" in (run / "report.html").read_text()
    assert processes_of(run) == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("broker", ["sqlite", "redis", "postgres"])
def test_the_upgrade_suite_holds(broker: str, tmp_path: Path) -> None:
    done = command(tmp_path, "run", "upgrade", "--broker", broker, timeout=1100)
    assert done.returncode == HELD, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_failover_loses_nothing_that_waited_for_its_replica(tmp_path: Path) -> None:
    need_server()
    done = command(tmp_path, "run", "redis-failover", timeout=250)
    assert done.returncode == USAGE
    assert "run it with --broker redis" in done.stderr
    done = command(tmp_path, "run", "redis-failover", "--broker", "redis", timeout=250)
    assert done.returncode == HELD, done.stdout + done.stderr


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_nodes_of_a_wheel_are_replaced_by_todays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", source], input=archive, check=True)
    building = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(building, check=True, timeout=250)
    (wheel,) = tmp_path.glob("*.whl")
    done = command(tmp_path, "run", "upgrade", "--from", str(wheel), "--for", "40s", "--directory", "run", timeout=300)
    assert done.returncode == HELD, done.stdout + done.stderr
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert wheel.name in facts["versions"]["old"]


# ---------------------------------------------------------------- one's own tasks

SHOP = """
import os
from stem_actors import Stem

app = Stem()

@app.task(queue="mail")
def send(to):
    with open(os.path.join(os.path.dirname(__file__), "sent"), "a") as sent:
        sent.write(to + "\\n")

@app.task(name="fails", max_retries=0)
def fails():
    raise ValueError("as always")
"""
LOAD = """
rate = 20
[[task]]
name = "shop.send"
args = ["a@b.c"]
expect = "succeeded"
[[task]]
name = "fails"
count = 3
expect = "failed"
"""


@pytest.mark.timeout(120)
def test_the_operators_own_tasks_are_run_and_judged(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "load.toml").write_text(LOAD)
    words = ["--app", "shop:app", "--workload", "load.toml", "--for", "3s", "--schedule", "kill-executor/1s", "--json"]
    done = command(tmp_path, "run", "smoke", *words)
    assert done.returncode == HELD, done.stdout + done.stderr
    findings = {finding["checker"]: finding for finding in json.loads(done.stdout)["findings"]}
    ended = findings["no-loss"]["figures"]["ended"]
    assert ended > 200
    assert findings["ends"]["figures"]["judged"] == ended
    assert len((tmp_path / "sent").read_text().splitlines()) >= ended - 3
    (run,) = (tmp_path / "stem-chaos-runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-smoke-\d+", run.name)


# ---------------------------------------------------------------- ending early


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nobody_behind_and_says_where_its_history_is(number: int, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [PROGRAM, "run", "smoke", "--directory", str(run)], cwd=tmp_path, env=environ(), stdout=output, stderr=output
        )
    try:
        until(lambda: "faults: " in log.read_text(), 60.0, "it injects faults")
        process.send_signal(number)
        process.send_signal(number)  # somebody impatient
        assert process.wait(A_MINUTE) == INTERRUPTED, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert f"the run has not come to its end; its history is in {run}" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert processes_of(run) == []
    done = command(tmp_path, "check", str(run))
    assert done.returncode == HELD, done.stdout + done.stderr
    assert "unknown" in done.stdout


# ---------------------------------------------------------------- check, report, list


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The history of a run that lost a task."""
    directory = tmp_path / "broken"
    write_facts(directory, RunFacts("smoke", "sqlite", 7, 3.0, 5, 1, 1, 2, 0.0))
    recorder = Recorder(directory, "client")
    call = recorder.invoke(Verb.ENQUEUE, task_id="a", workload="short", task="double", queue="default")
    recorder.write(Verb.ENQUEUE, Phase.OK, call, task_id="a", workload="short", task="double", queue="default")
    recorder.happened(Verb.OBSERVE, task_id="a", state="queued", when="end")
    recorder.close()
    return directory


def test_a_broken_promise_is_an_exit_code_and_a_text(broken: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "check", str(broken))
    assert done.returncode == BROKEN
    assert "BROKEN  no-loss" in done.stdout
    assert "broken: 1 of " in done.stdout


def test_json_says_the_same(broken: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "check", str(broken), "--json")
    assert done.returncode == BROKEN
    assert json.loads(done.stdout)["verdict"] == "broken"


def test_reports_are_written_once_more(broken: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "report", str(broken))
    assert done.returncode == HELD
    assert done.stdout.split() == [str(broken / name) for name in ("report.json", "report.xml", "report.html")]
    assert ElementTree.parse(broken / "report.xml").getroot().find(".//failure") is not None


def test_suites_faults_and_workloads_are_listed(tmp_path: Path) -> None:
    done = command(tmp_path, "list")
    assert done.returncode == HELD
    assert {"smoke", "upgrade", "soak", "redis-failover", "kill-executor", "bank"} <= set(
        re.findall(r"^([\w-]+)", done.stdout, re.M)
    )
    listed = json.loads(command(tmp_path, "list", "--json").stdout)
    assert set(listed) == {"suites", "faults", "workloads"}
    assert all(each["does"] for kind in ("faults", "workloads") for each in listed[kind]), listed


# ---------------------------------------------------------------- what cannot be run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nothing"], "there is no suite 'nothing'"),
        (["run", "smoke", "--schedule", "kill-everything/1s"], "'kill-everything', which is no fault"),
        (["run", "smoke", "--schedule", "kill-executor"], "is not FAULT/EVERY[:FOR]"),
        (["run", "smoke", "--broker", "ftp://x"], "--broker is 'ftp://x'"),
        (["run", "smoke", "--for", "long"], "--for is 'long', which is not a duration"),
        (["run", "smoke", "--app", "shop:app"], "--app and --workload belong together"),
        (["run", "smoke", "--app", "shop:app", "--workload", "none.toml"], "none.toml cannot be read"),
        (["run", "smoke", "--from", "no such thing"], "--from is 'no such thing', which is no wheel"),
        (["run", "smoke", "--from", "none.whl"], "there is no wheel none.whl"),
        (["run", "smoke", "--seed", "1", "--replay", "2"], "not allowed with argument"),
        (["run", "smoke", "--seed", "x"], "invalid int value"),
        (["run", "smoke", "--directory", "."], "is not empty"),
        (["check", "nowhere"], "nowhere holds no history of a run"),
        ([], "usage: stem-chaos"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = command(tmp_path, *words)
    assert done.returncode == USAGE, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"something"}


def test_a_broker_that_is_not_there_is_no_broken_promise(tmp_path: Path) -> None:
    done = command(tmp_path, "run", "smoke", "--broker", "redis://127.0.0.1:1/0")
    assert done.returncode == FAILED
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
