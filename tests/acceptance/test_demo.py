"""The demo as `make demo` runs it, on a part of the standard library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parents[2] / "examples" / "stdlib_index" / "demo.py"
STEM_NODE = Path(sys.executable).with_name("stem-node")

pytestmark = pytest.mark.skipif(not STEM_NODE.exists(), reason="stem-node is not installed beside this Python: make venv")


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--directory", str(directory), *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("STEM_")} | {"COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_demo_proves_that_nothing_is_lost_under_kills(tmp_path: Path) -> None:
    demo = start(tmp_path, "--files", "300")
    output, _ = demo.communicate(timeout=55)

    assert demo.returncode == 0, output
    for line in (
        "ok  kills in front of you: executor killed, consumer killed, settler killed, worker killed",
        "ok  every task succeeded: 900 of 900",
        "ok  each result has the sha256 of its file: 300 of 300 files",
        "ok  no task is left or dead-lettered: 0 left, 0 dead",
        "ok  the node leaves on SIGTERM with exit code 0",
        "Proven in",
    ):
        assert line in output, output
    assert "0 unexplained" in output
    assert "\x1b" not in output, "no escape codes where it is no terminal"


def test_demo_stops_its_node_when_interrupted(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    lines = iter(demo.stdout.readline, "")
    node_line = next(line for line in lines if line.startswith("node: "))
    node = psutil.Process(int(node_line.rpartition("pid ")[2].rstrip(")\n")))
    next(line for line in lines if "tasks" in line and "redelivered" in line)

    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=30)

    assert demo.returncode == 130, output
    assert not node.is_running()
