"""The documentation does what it says: its Python runs, its commands parse, its tables name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stem_actors.model.retry import DEFAULT_BACKOFF
from stem_cli.parsers.base import CommandParser
from stem_cli.parsers.chaos import build_chaos_parser
from stem_cli.parsers.stem import build_stem_parser
from tests.docs.pages import ROOT, Block, blocks, commands, pages
from tests.docs.reader import check_command, environ

TUTORIAL = ROOT / "docs/tutorial/first-task.md"
SHELLS = ("bash", "sh", "console", "shell")
ALL = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
WITH_PYTHON = [param for param in ALL if any(block.language == "python" for block in blocks(Path(str(param.values[0]))))]


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_blocks_run_in_the_order_of_their_page(page: Path, tmp_path: Path) -> None:
    runner = [sys.executable, str(Path(__file__).with_name("run_page.py")), str(page)]
    done = subprocess.run(runner, cwd=tmp_path, env=environ(), text=True, capture_output=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ALL)
def test_every_command_in_a_page_is_one(page: Path) -> None:
    for block in blocks(page):
        if block.language in SHELLS:
            for words in commands(block.text):
                check_command(words, f"{page.name}:{block.line}")


@pytest.mark.parametrize("page", ALL)
def test_every_variable_in_a_page_is_one(page: Path) -> None:
    known = set(re.findall(r"STEM_[A-Z_]*[A-Z]", code_of_the_package()))
    assert set(re.findall(r"STEM_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8"))) - known == set()


def code_of_the_package() -> str:
    from stem_actors.config import SETTINGS

    sources = [*(ROOT / "stem_actors").rglob("*.py"), *(ROOT / "cli").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return " ".join([*(setting.variable for setting in SETTINGS), *(source.read_text(encoding="utf-8") for source in sources)])


# ---------------------------------------------------------------- the tutorial, command by command

OURS = re.compile(r"(?:[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z)")
INSTALLING = ("python3 -m venv", ". ~/", "pip install", "mkdir ~/shop", "cd ~/shop")


@pytest.mark.parametrize("page", [TUTORIAL, ROOT / "README.md"], ids=["tutorial", "readme"])
def test_a_page_that_is_followed_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    """Every command is run in order; where output is shown, that is what they print, times and ids aside."""
    with running_nodes() as nodes:
        steps = list(blocks(page))
        for block, following in zip(steps, [*steps[1:], None], strict=True):
            if block.file:
                (tmp_path / block.file).write_text(block.text, encoding="utf-8")
            if block.language == "bash":
                shown = following.text if following and following.language == "text" else None
                follow(block, shown, tmp_path, nodes)
        (node,) = nodes
        node.terminate()
        assert node.wait(timeout=20) == 0


@contextmanager
def running_nodes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The nodes that are started are gone at the end."""
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        yield nodes
    finally:
        for node in nodes:
            if node.poll() is None:
                node.kill()
            node.wait()


def follow(block: Block, shown: str | None, folder: Path, nodes: list[subprocess.Popen[bytes]]) -> None:
    lines = [line for line in block.text.splitlines() if not line.startswith(INSTALLING)]
    if any(line.startswith("stem-node") for line in lines):
        (line,) = lines
        nodes.append(subprocess.Popen(["bash", "-c", f"exec {line}"], cwd=folder, env=environ(), stderr=subprocess.DEVNULL))
        return
    wanted, printed = neutral(shown or ""), ""
    for line in lines:
        until = time.monotonic() + 10
        now = run(line, folder)
        # It may look before the worker is so far; a reader looks again.
        while not wanted.startswith(neutral(printed + now, folder)) and line.startswith("stem task show"):
            assert time.monotonic() < until, f"line {block.line}: {printed + now}"
            now = run(line, folder)
        printed += now
    if shown is not None:
        assert neutral(printed, folder) == wanted, f"line {block.line}"


def run(line: str, folder: Path) -> str:
    """What a command prints. A task that failed is no error here, a wrong command is."""
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=environ(), text=True, capture_output=True, timeout=30)
    assert done.returncode in (0, 1), f"{line}: {done.stderr}"
    return done.stdout + "".join(words for words in done.stderr.splitlines(True) if "stem.audit" not in words)


def neutral(text: str, folder: Path | None = None) -> str:
    """Without what differs each time."""
    if folder is not None:
        text = text.replace(str(folder), "/home/you/shop")
    lines = [line.rstrip() for line in OURS.sub("#", text).splitlines()]
    return "\n".join(line for line in lines if line)


# ---------------------------------------------------------------- tables


def test_the_reference_is_what_the_code_says() -> None:
    check = [sys.executable, str(ROOT / "scripts/reference"), "--check"]
    done = subprocess.run(check, text=True, capture_output=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_lists_every_command() -> None:
    listed = set(re.findall(r"`(stem(?:-node|-chaos)?(?: [a-z]+)*)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"stem-node", *leaves(build_stem_parser()), *leaves(build_chaos_parser())} - listed == set()


def leaves(parser: CommandParser) -> Iterator[str]:
    groups = [action for action in parser._actions if action.choices and hasattr(action, "add_parser")]
    if not groups:
        yield parser.prog
    for group in groups:
        for child in dict(group.choices or {}).values():
            yield from leaves(child)


def test_every_page_is_reached_from_the_index() -> None:
    found, open_pages = set[Path](), [ROOT / "docs/index.md"]
    while open_pages:
        page = open_pages.pop()
        if page in found:
            continue
        found.add(page)
        targets = re.findall(r"\]\(([^)#:\s]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
        open_pages += [(page.parent / target).resolve() for target in targets if (page.parent / target).exists()]
    wanted = {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in ("decisions", "changelog.d")}
    assert {str(page.relative_to(ROOT)) for page in wanted - found} == set()


@pytest.mark.parametrize("page", ALL)
def test_a_link_to_a_part_of_a_page_leads_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [f"{target}#{part}" for target, part in links if part not in parts(page.parent / target if target else page)] == []


def parts(page: Path) -> set[str]:
    """What a page's headings are called in links to them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_layers_that_are_drawn_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    names = [[each.strip(" ()").removeprefix("stem_actors.") for each in layer.split("|")] for layer in layers]
    drawn = [" | ".join(name for name in layer if exists(name)) for layer in names]
    assert "\n".join(["```", *drawn, "```"]) in (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")


def exists(module: str) -> bool:
    """A layer may be declared before there is anything in it."""
    places = [ROOT / "stem_actors" / module, ROOT / "cli" / module, ROOT / "chaos" / module]
    return any(place.is_dir() or place.with_suffix(".py").exists() for place in places)


def test_the_delays_that_the_tutorial_names_are_the_default_ones() -> None:
    assert [DEFAULT_BACKOFF.delay(attempt, 0.0) for attempt in range(3)] == [2, 4, 8]
    assert "after 2, 4 and 8 seconds, less up to a quarter" in " ".join(TUTORIAL.read_text(encoding="utf-8").split())
