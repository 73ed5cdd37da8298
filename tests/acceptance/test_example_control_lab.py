"""The lab for control commands, started and toured as its README says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from stem_actors.config import SETTINGS, resolve
from stem_chaos.link import free_port
from tests.fixtures.node import eventually, is_alive
from tests.fixtures.redis_server import need_server

LAB = Path(__file__).parents[2] / "examples/worker_control_lab"
STEM_NODE = Path(sys.executable).with_name("stem-node")

pytestmark = [
    pytest.mark.skipif(not STEM_NODE.exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


@dataclass
class Lab:
    """What was started of it, with its log."""

    environ: dict[str, str]
    log_file: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, program: str) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STEM_")}
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, program],
                cwd=LAB,
                env={**inherited, **self.environ, "STEM_TEST_MARK": self.mark, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def everything(self) -> set[int]:
        """The pids of whatever it has started and is alive. Redis writes over its environment: it counts while it is a child."""
        mark = f"STEM_TEST_MARK={self.mark}".encode()
        found = {process.pid for process in self.processes if is_alive(process.pid)}
        for pid in list(found):
            with suppress(psutil.NoSuchProcess):
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True) if is_alive(child.pid)}
        for pid in psutil.pids():
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes() and is_alive(pid):
                    found.add(pid)
        return found

    def close(self) -> None:
        for pid in self.everything():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture(params=["redis", pytest.param("sqlite", marks=pytest.mark.soak)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    environ = {"STEM_SOFT_GRACE_PERIOD": "1s", "STEM_DRAIN_TIMEOUT": "500ms"}
    if request.param == "redis":
        need_server()
        environ["REDIS_PORT"] = str(free_port())
    else:
        environ["STEM_BROKER_URL"] = f"sqlite:///{tmp_path}/lab.db"
    made = Lab(environ, tmp_path / "log")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.timeout(150)
def test_the_tour_finds_everything_as_its_readme_says(lab: Lab) -> None:
    whole = lab.start("run.py")
    eventually(lambda: "enqueued number-6" in lab.log or whole.poll() is not None, 20, "tasks")
    assert whole.poll() is None, lab.log
    tour = lab.start("tour.py")
    assert tour.wait(100) == 0, lab.log
    said = lab.log
    for command in ("worker ping", "worker stats", "worker inspect", "task revoke", "task show", "worker shutdown"):
        assert f"$ stem {command}" in said
    assert "was revoked and tidies up" in said
    assert "has to leave this worker" in said
    assert "shown in the lab" in said
    os.killpg(whole.pid, signal.SIGINT)
    assert whole.wait(20) == 0, lab.log
    assert "Traceback" not in lab.log
    eventually(lambda: not lab.everything(), 5, "something is left running")


def test_its_settings_are_those_that_stem_knows() -> None:
    lines = [line.partition("=") for line in (LAB / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    named = {name: value for name, _, value in lines}
    assert {name for name in named if name.startswith("STEM_")} <= {setting.variable for setting in SETTINGS}
    resolve({}, named)
