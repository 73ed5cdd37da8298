"""The examples that run a worker and a script beside it, each started as its README says, on a file and on Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stem_actors import Settings, Stem
from stem_actors.config import SETTINGS, resolve
from stem_actors.model.json_names import parse_time
from stem_cli.parsers.node import build_node_parser
from tests.fixtures.redis_server import new_namespace, shared_url

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = Path(sys.executable).parent
NAMES = ("dlq_sandbox", "rate_limit_delay", "progress_heartbeat")

pytestmark = [
    pytest.mark.skipif(not (PROGRAMS / "stem-node").exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


class Stage:
    """Where an example runs: a broker, and the environment that names it."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.url = shared_url() if broker == "redis" else f"sqlite:///{folder}/example.db"
        self.namespace = new_namespace()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STEM_")},
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "STEM_BROKER_URL": self.url,
            "STEM_NAMESPACE": self.namespace,
        }

    @contextmanager
    def start(self, name: str) -> Iterator[subprocess.Popen[str]]:
        """The example, and whatever it starts; all of it is gone afterwards."""
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [str(EXAMPLES / name / "run")]
        with subprocess.Popen(command, env=self.environ, text=True, start_new_session=True, **streams) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, name: str) -> str:
        """What the example prints; it ends by itself, with everything that it has started."""
        with self.start(name) as process:
            out, err = process.communicate(timeout=55)
        assert (process.returncode, "Traceback" in err) == (0, False), out + err
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        return out

    def open(self) -> closing[Stem]:
        return closing(Stem(settings=Settings(broker_url=self.url, namespace=self.namespace)))


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, request.param)


def test_invoices_fail_are_looked_at_and_replayed_and_are_processed(stage: Stage) -> None:
    printed = stage.run("dlq_sandbox")
    assert len(re.findall(r"^failed: INV-\d+: .*LedgerUnavailable", printed, re.MULTILINE)) == 3
    assert len(re.findall(r"\| invoices\.process \| +3 \| \S+Z +\| max-retries-exhausted", printed)) == 3
    assert "would replay 3 dead letters of queue 'invoices'" in printed
    assert "\nreplayed 3 dead letters of queue 'invoices'" in printed
    assert re.findall(r"^processed: (.*)$", printed, re.MULTILINE) == [
        f"INV-100{number} is booked (attempt 3)" for number in (1, 2, 3)
    ]
    dead, record = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert dead["reason"] == "max-retries-exhausted"
    assert "LedgerUnavailable" in dead["meta"]["error"]
    assert (record["state"], record["attempt"]) == ("succeeded", 3)
    assert record["meta"]["replayCount"] == 1
    assert parse_time(record["meta"]["lastReplayAt"]) >= parse_time(dead["deadAt"])
    with stage.open() as app:
        assert app.stores.broker.depths() == []


def test_three_pages_a_second_are_granted_and_delayed_ones_wait_for_their_time(stage: Stage) -> None:
    printed = stage.run("rate_limit_delay")
    line = r"^granted: page +(\d+) after +(\d+\.\d+) s, denied (once|\d+ times) before(, delayed)?"
    granted = [
        (int(page), float(after), times, bool(late)) for page, after, times, late in re.findall(line, printed, re.MULTILINE)
    ]
    assert sorted(page for page, *_ in granted) == list(range(1, 13))
    # Three tokens there are at once, and three more come each second, so the nth cannot start earlier than this; later it may.
    assert all(after >= (nth - 3) / 3 - 0.05 for nth, (_, after, _, _) in enumerate(granted, 1)), printed
    assert min(after for _, after, _, late in granted if late) >= 5.0
    assert any(times != "0 times" for _, _, times, late in granted if not late)


def test_five_steps_are_told_as_they_are_made_and_so_are_heartbeats(stage: Stage) -> None:
    printed = stage.run("progress_heartbeat")
    steps = re.findall(r"^progress: ([\d.]+) \(step (\d) of 5\)$", printed, re.MULTILINE)
    assert steps == [("0.2", "1"), ("0.4", "2"), ("0.6", "3"), ("0.8", "4"), ("1.0", "5")]
    assert re.search(r"^heartbeat: worker \S+, 1 in flight$", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == "succeeded: the monthly report is done"


def test_ctrl_c_ends_an_example_and_all_that_it_has_started(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "sqlite")
    with stage.start("progress_heartbeat") as process:
        assert process.stdout is not None
        assert any(line.startswith("progress: ") for line in iter(process.stdout.readline, "")), "a report is under way"
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=40)
    assert (process.returncode, "Traceback" in err) == (130, False), err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


# ---------------------------------------------------------------- their settings and their compose files


@pytest.mark.parametrize("name", NAMES)
def test_example_settings_are_settings(name: str) -> None:
    lines = (EXAMPLES / name / ".env.example").read_text().splitlines()
    given = {variable: value for variable, _, value in (line.partition("=") for line in lines if line and line[0] != "#")}
    ours = {variable for variable in given if variable.startswith("STEM_")}
    assert ours - {setting.variable for setting in SETTINGS} == set()
    resolve({}, given)


@pytest.mark.parametrize("name", NAMES)
def test_containers_run_what_the_script_runs(name: str) -> None:
    services = YAML(typ="safe").load(EXAMPLES / name / "compose.yaml")["services"]
    build = services["worker"]["build"]
    assert (EXAMPLES / name / build["context"] / build["dockerfile"]).resolve() == EXAMPLES / name / "Dockerfile"
    script = (EXAMPLES / name / "run").read_text()
    assert f"{services['worker']['command']} --admin" in script
    build_node_parser().parse_args(services["worker"]["command"].split()[1:])
    (other,) = [each["command"] for service, each in services.items() if service not in ("redis", "worker")]
    assert script.splitlines()[-1] == other
    assert (EXAMPLES / name / other.split()[1]).exists()
