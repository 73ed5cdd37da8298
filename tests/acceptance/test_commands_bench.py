"""`stem bench` runs, says all it should, and leaves nothing behind. No figure is looked at."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.shell import Shell

KEYS = {"name", "text", "unit", "value", "samples", "raw", "rawWhat", "ratio", "check", "note", "details"}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_quick_benchmark_reports_every_figure_and_touches_nothing(shell: Shell) -> None:
    shell.out("stem", "enqueue", "t")
    before = sorted(shell.directory.iterdir())
    done = shell.run("stem", "bench", "--quick", "--tasks", "200", "--what", "throughput,enqueue,bulk,recovery", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["quick"] is True
    assert (told["broker"]["kind"], told["broker"]["synchronous"]) == ("sqlite", "full")
    assert set(told["machine"]) == {"host", "cpuCount", "loadAvg", "python"}
    figures = {figure["name"]: figure for figure in told["figures"]}
    assert list(figures) == ["throughput", "enqueue", "bulk", "recovery"]
    assert all(set(figure) == KEYS and figure["value"] > 0 for figure in figures.values())
    assert figures["throughput"]["check"] == {"expected": 200, "missing": 0, "repeated": 0}
    assert figures["recovery"]["check"] == {"expected": 2, "missing": 0, "repeated": 0}
    assert all(figures[name]["ratio"] > 0 for name in ("throughput", "enqueue", "bulk"))
    assert sorted(shell.directory.iterdir()) == before
    with closing(sqlite3.connect(shell.directory / "stem.db")) as database:
        assert database.execute("SELECT name FROM namespace").fetchall() == [("stem",)]
    assert shell.json("stem", "queue", "list", "--json")[0]["pending"] == 1


def test_a_memory_broker_is_measured_in_the_program(shell: Shell) -> None:
    words = ["--quick", "--tasks", "100", "--what", "payload,idle", "--broker", "memory://"]
    text = shell.out("stem", "bench", *words)
    assert "no-op tasks with 1 KiB" in text
    assert "Every task ran exactly as often as it should" in text
    assert list(shell.directory.iterdir()) == []


@pytest.mark.parametrize("words", [["--what", "nothing"], ["--what", ""], ["--tasks", "1"], ["--broker", "amqp://h"]])
def test_what_cannot_be_measured_is_a_usage_error(shell: Shell, words: list[str]) -> None:
    assert shell.code("stem", "bench", *words)[0] == 64
    assert list(shell.directory.iterdir()) == []


def test_a_place_that_does_not_exist_is_an_error(shell: Shell) -> None:
    code, text = shell.code("stem", "bench", "--broker", f"sqlite:///{shell.directory}/nowhere/stem.db")
    assert (code, "nowhere" in text) == (70, True)
