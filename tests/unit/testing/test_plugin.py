"""The pytest plugin, as a user's own pytest runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/how-to/test-your-tasks.md"
SHOP = """
from stem_actors import Settings, Stem, current_task

app = Stem(settings=Settings(broker_url="memory://"))


@app.task(max_retries=3)
def welcome(address):
    if current_task().attempt < 1:
        raise ConnectionError("mail is down")
    return address


@app.task
def never():
    return 1
"""


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest there, with this plugin and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTEST_"))}
    environ = {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "stem_actors.contrib.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    return subprocess.run([*command, *arguments], cwd=folder, env=environ, text=True, capture_output=True, timeout=50)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def test_the_page_that_shows_it_is_right(tmp_path: Path) -> None:
    files = {block.file: block.text for block in blocks(PAGE) if block.file is not None}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = pytest_in(tmp_path, *(name for name in files if name.startswith("test_")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_failure_says_which_schedule_it_was_and_shows_it_again(shop: Path) -> None:
    (shop / "test_shop.py").write_text(
        "from shop import app, never, welcome\n\n\n"
        "def test_welcome(stem_simulation):\n"
        "    for run in stem_simulation.schedules(app, 20):\n"
        "        run.enqueue(welcome, 'a@b.c')\n"
        "        run.until_quiet()\n"
        "        assert run.seed != 7\n"
    )
    failed = pytest_in(shop, "test_shop.py")
    assert failed.returncode == 1
    assert "seed 7, after " in failed.stdout
    assert "pytest test_shop.py::test_welcome --stem-seed 7" in failed.stdout
    assert "deliver task-1 attempt 0" in failed.stdout
    again = pytest_in(shop, "test_shop.py::test_welcome", "--stem-seed", "7")
    assert story(again.stdout) == story(failed.stdout)
    assert pytest_in(shop, "test_shop.py::test_welcome", "--stem-seed", "8").returncode == 0
    assert pytest_in(shop, "test_shop.py::test_welcome", "--stem-schedules", "7").returncode == 0


def test_parts_share_the_seeds_out(shop: Path) -> None:
    (shop / "test_shop.py").write_text(
        "import pytest\n"
        "from shop import app, never\n\n\n"
        "@pytest.mark.parametrize('part', range(2))\n"
        "def test_never(stem_simulation, part):\n"
        "    seeds = [run.seed for run in stem_simulation.schedules(app, 3, part=part)]\n"
        "    assert seeds in ([[0, 1, 2], [3, 4, 5]][part], [4])\n"
    )
    done = pytest_in(shop, "test_shop.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pytest_in(shop, "test_shop.py", "--stem-seed", "4").returncode == 0


def story(output: str) -> list[str]:
    """What happened, from a report."""
    lines = output.splitlines()
    begin = next(index for index, line in enumerate(lines) if "stem simulation" in line)
    return [line for line in lines[begin:] if " s  " in line]


def test_a_simulation_ends_with_its_test_and_gives_the_application_back(shop: Path) -> None:
    (shop / "test_shop.py").write_text(
        "import time\n"
        "from shop import app, welcome\n\n"
        "real = time.sleep\n\n\n"
        "def test_first(stem_simulation):\n"
        "    run = stem_simulation(app)\n"
        "    other = stem_simulation(app, seed=1)\n"
        "    assert time.sleep is not real\n\n\n"
        "def test_second():\n"
        "    assert time.sleep is real\n"
        "    assert app.stores.broker.depths() == []\n"
    )
    done = pytest_in(shop, "test_shop.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_without_simulations_loads_nothing(shop: Path) -> None:
    (shop / "test_plain.py").write_text(
        "import sys\n\n\n"
        "def test_nothing_is_loaded():\n"
        "    assert [name for name in sys.modules if name.startswith('stem_actors.')] == \\\n"
        "        ['stem_actors.contrib', 'stem_actors.contrib.pytest_plugin']\n"
    )
    done = pytest_in(shop, "test_plain.py")
    assert done.returncode == 0, done.stdout + done.stderr
