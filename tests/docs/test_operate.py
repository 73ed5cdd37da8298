"""The page on operating Stem, followed from its first command to its last; and what its tables say."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stem_actors.metrics import TABLE
from stem_cli.parsers.chaos import build_chaos_parser
from stem_cli.parsers.stem import build_stem_parser
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import check_command, environ

PAGE = ROOT / "docs/how-to/operate.md"
ASKING = ("stem worker", "stem doctor", "stem health")
PATIENCE = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty directory; whatever the page has started there is gone at the end."""
    yield tmp_path
    for file in tmp_path.glob("run/*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text().split()[0]), signal.SIGKILL)


@pytest.mark.timeout(180)
def test_every_command_does_what_the_page_says(folder: Path) -> None:
    variables, printed = environ(), dict[str, str]()
    for block in blocks(PAGE):
        if block.file is not None:
            (folder / block.file).parent.mkdir()
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                if words[0] == "export":
                    name, _, value = words[1].partition("=")
                    variables[name] = value
                else:
                    printed[line.partition("#")[0].strip()] = run(line, folder, variables)
    assert printed["stem task wait drill-1 --timeout 60s"] == '"the report"\n'
    assert '"replayCount": 1' in printed["stem task show payment-7 --json"]
    assert printed["stem dlq purge --queue payments --yes"] == "removed 1 dead letter of queue 'payments'\n"
    assert list(folder.glob("run/*.pid")) == []


def run(line: str, folder: Path, variables: dict[str, str]) -> str:
    """What a command prints that exits as the page says. A reader who is too early looks again."""
    said = re.search(r"# exits with (\d+)", line)
    wanted = int(said[1]) if said else 0
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=variables, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=70
        )
        if done.returncode == wanted:
            return done.stdout
        is_early = line.startswith(ASKING) and time.monotonic() < deadline
        assert is_early, f"{line} exits with {done.returncode}: {done.stdout}{done.stderr}"


def test_commands_inside_sentences_are_commands() -> None:
    inline = re.findall(r"`(stem(?:-chaos|-node)? [^`]+)`", PAGE.read_text(encoding="utf-8"))
    assert inline
    names = {*names_of(build_stem_parser()), *names_of(build_chaos_parser())}
    for command in inline:
        if command not in names:  # else it is named, without what it needs
            check_command(shlex.split(command), PAGE.name)


def names_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield parser.prog
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from names_of(each)


def test_defaults_in_the_table_are_those_of_the_settings() -> None:
    known = rows(ROOT / "docs/reference/settings.md", default=2)
    told = rows(PAGE, default=1)
    assert told
    for variable, default in told.items():
        assert known[variable] == default, variable


def rows(page: Path, default: int) -> dict[str, str]:
    """The defaults in a table of variables, by variable."""
    found: dict[str, str] = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `STEM_"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found |= dict.fromkeys(re.findall(r"STEM_[A-Z_]+", cells[0]), cells[default])
    return found


def test_metrics_on_the_page_are_metrics() -> None:
    named = set(re.findall(r"\bstem_[a-z_]+", PAGE.read_text(encoding="utf-8"))) - {"stem_actors"}
    assert named - set(TABLE) == set()
    assert "stem_replay_count_total" in named
