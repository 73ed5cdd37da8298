"""The man pages, as a wheel brings them: every command has one, and man can read it."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from stem_cli.parsers.all import BUILDERS

ROOT = Path(__file__).parents[2]
IGNORED = (".*", "*.egg-info", "build", "dist", "__pycache__", "tests", "docs", "examples")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page of a wheel that is built from the sources, by its command."""
    pytest.importorskip("argparse_manpage")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    copytree(ROOT, source, ignore=ignore_patterns(*IGNORED))  # a build writes into its tree, which others are using
    (source / "cli/man").mkdir(exist_ok=True)
    (source / "cli/man/stem-of-old.1").write_text("not among the commands any more\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONPATH")}
    done = subprocess.run([*command, "-w", str(folder), str(source)], env=environ, text=True, capture_output=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        found = [name for name in opened.namelist() if "/data/share/man/man1/" in name]
        opened.extractall(folder / "wheel", found)
    return {Path(name).stem: folder / "wheel" / name for name in found}


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield parser.prog
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from commands(each)


ALL = [each for build in BUILDERS.values() for each in commands(build())]


def test_every_command_has_a_page_and_every_page_a_command(pages: dict[str, Path]) -> None:
    assert set(pages) == {command.replace(" ", "-") for command in ALL}


def test_a_page_says_how_its_command_is_used_and_shows_it(pages: dict[str, Path]) -> None:
    for command in ALL:
        name = command.replace(" ", "-")
        sections = re.split(r"^\.SH ", pages[name].read_text().replace("\\-", "-"), flags=re.MULTILINE)
        texts = {title: text for title, _, text in (section.partition("\n") for section in sections)}
        assert re.fullmatch(rf"{name} - \w.*\n", texts["NAME"]), name
        assert texts["SYNOPSIS"].startswith(f".B {command}\n"), name
        assert any(line.startswith(command.split()[0]) for line in texts["EXAMPLES"].splitlines()), name
        assert set(re.findall(r"\\fB([\w-]+)\\fR\(1\)", texts["SEE ALSO"] + texts.get("COMMANDS", ""))) <= set(pages)


def test_man_can_read_every_page(pages: dict[str, Path]) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        if os.environ.get("CI"):
            pytest.fail("mandoc is not installed")
        pytest.skip("mandoc is not installed")
    done = subprocess.run([mandoc, "-Tlint", "-Wwarning", *map(str, pages.values())], text=True, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
