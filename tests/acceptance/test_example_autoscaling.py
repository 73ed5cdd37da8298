"""The autoscaling example, started as its README says, with short times."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stem_actors.config import SETTINGS, resolve
from stem_cli.parsers.node import build_node_parser
from tests.fixtures.redis_server import new_namespace, shared_url

EXAMPLE = Path(__file__).parents[2] / "examples/autoscaling_demo"
PROGRAMS = Path(sys.executable).parent
STEP = re.compile(r"goes from (\d) to (\d) executors: (scale-\w+), backlog (\d+), in flight (\d+)")

pytestmark = [
    pytest.mark.skipif(not (PROGRAMS / "stem-node").exists(), reason="stem-node is not installed beside this Python: make venv"),
    pytest.mark.xdist_group("examples"),
]


@pytest.mark.parametrize("broker", [pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def test_the_worker_grows_with_the_bursts_and_shrinks_afterwards(broker: str, tmp_path: Path) -> None:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEM_")},
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "STEM_BROKER_URL": shared_url() if broker == "redis" else f"sqlite:///{tmp_path}/example.db",
        "STEM_NAMESPACE": new_namespace(),
        "STEM_ADMIN": "127.0.0.1:0",
        "STEM_CONCURRENCY": "",  # MAX, then
        "STEM_AUTOSCALE": "1:3",
        "STEM_AUTOSCALE_TICK": "100ms",
        "STEM_AUTOSCALE_IDLE_PERIOD": "500ms",
        "STEM_AUTOSCALE_UP_COOLDOWN": "200ms",
        "STEM_AUTOSCALE_DOWN_COOLDOWN": "200ms",
        "TASKS": "30",
        "BURST": "15",
        "PAUSE_MS": "500",
        "TASK_DURATION_MS": "200",
    }
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([str(EXAMPLE / "run")], env=environ, text=True, start_new_session=True, **streams) as process:
        try:
            printed = process.communicate(timeout=55)[0]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    assert "producer: all 30 images are done" in printed
    steps = [(int(before), int(after), reason) for before, after, reason, *_ in STEP.findall(printed)]
    assert steps[:4] == [(3, 2, "scale-down"), (2, 1, "scale-down"), (1, 2, "scale-up"), (2, 3, "scale-up")], printed
    assert steps[-1] == (2, 1, "scale-down"), printed
    assert all(one[1] == other[0] for one, other in pairwise(steps))


def test_its_settings_are_settings_and_its_compose_file_starts_a_node_that_exists() -> None:
    lines = (EXAMPLE / ".env.example").read_text().splitlines()
    given = {variable: value for variable, _, value in (line.partition("=") for line in lines if line and line[0] != "#")}
    assert {name for name in given if name.startswith("STEM_")} - {setting.variable for setting in SETTINGS} == set()
    assert resolve({}, given).settings.autoscale == (1, 6)
    services = YAML(typ="safe").load((EXAMPLE / "compose.yaml").read_text())["services"]
    program, *words = services["worker"]["command"].split()
    assert program == "stem-node"
    build_node_parser().parse_args(words)
    own = {name for name in services["worker"]["environment"] if name.startswith("STEM_")}
    assert own - {setting.variable for setting in SETTINGS} == set()
