"""Stem as a user installs it: from the checkout, into an environment of its own, and run in an empty directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[2]
IGNORED = (".venv*", ".*_cache", ".git", ".hypothesis", "*.egg-info", "build", "dist", "__pycache__")


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_an_installed_stem_runs_a_task_from_an_empty_directory(tmp_path: Path) -> None:
    source, home, work = tmp_path / "source", tmp_path / "venv", tmp_path / "work"
    copytree(ROOT, source, ignore=ignore_patterns(*IGNORED))  # a build writes into its tree, which others are using
    work.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTHON", "VIRTUAL_ENV"))}

    def run(*words: object, timeout: float = 60) -> str:
        done = subprocess.run([*map(str, words)], cwd=work, env=environ, text=True, capture_output=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", home, timeout=120)
    run(home / "bin/pip", "install", "--quiet", "--disable-pip-version-check", source, timeout=240)
    assert re.fullmatch(r"stem \d+\.\d+\.\d+\n", run(home / "bin/stem", "--version"))
    assert "--visibility-timeout" in run(home / "bin/stem-node", "--help")
    assert {page.name for page in (home / "share/man/man1").iterdir()} >= {"stem.1", "stem-node.1", "stem-chaos.1"}
    assert ".TH STEM" in (home / "share/man/man1/stem.1").read_text().upper()
    assert str(home) in run(home / "bin/python", "-c", "import stem_actors; print(stem_actors.__file__)")

    (work / "shop.py").write_text(
        "from stem_actors import Stem\napp = Stem()\n\n@app.task\ndef total(prices: list[int]) -> int:\n    return sum(prices)\n"
    )
    node = subprocess.Popen(
        [home / "bin/stem-node", "--app", "shop", "--admin", "off"], cwd=work, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        printed = run(home / "bin/stem", "enqueue", "shop.total", "--args", "[[1, 2, 3]]", "--wait", "30s")
        assert printed.splitlines()[1] == "6"
        node.send_signal(signal.SIGTERM)
        _, log = node.communicate(timeout=10)
        assert node.returncode == 0, log
    finally:
        node.kill()
        node.communicate()
    assert {path.name for path in work.iterdir()} <= {"shop.py", "stem.db", "stem.db-wal", "stem.db-shm", "__pycache__"}
