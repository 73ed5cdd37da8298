"""What the page on guarantees names as evidence exists, and its tables are whole: no promise and no fault without it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stem_chaos.checker.all import check_all
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.schedule import parse_schedule
from stem_chaos.suites import load_suite, suite_names
from tests.chaos.histories import Story
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/explanation/guarantees.md").read_text(encoding="utf-8")
TEST = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")
SCENARIO = re.compile(r"`([a-z-]+):([a-z/.-]+)`")
CELLS = {"unharmed", "again", "waits", "refuses", "shifts", "tail", "all"}
NOTHING = {"–", "="}
COLUMNS = (4, 9)  # of the two tables of faults, the fault itself left out


def section(title: str, level: str = "##") -> str:
    """What stands between a heading and the next of its level or above."""
    found = re.search(rf"^{level} {re.escape(title)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, their heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row, after in zip(tables, [*tables[1:], [""]], strict=True) if "---" not in row[0] + after[0]]


FAULT_ROWS = [row for row in rows(section("Fault by fault")) if row[0].startswith("[")]


def scenarios_of(suite: str) -> set[str]:
    """The faults that a suite injects, those that are one of a kind under the kind's name as well."""
    entries = [entry for text in load_suite(suite).schedule.values() for entry in parse_schedule(text, FAULTS)]
    return {name for entry in entries for name in (entry.fault, entry.fault.partition("/")[0])}


def functions(file: Path) -> set[str]:
    if not file.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 100
    assert [file for file, _ in named if not (ROOT / "tests" / file).exists()] == []
    assert [f"{file}::{name}" for file, name in named if name and name not in functions(ROOT / "tests" / file)] == []


def test_every_fault_of_a_suite_that_is_named_is_injected_there() -> None:
    named = SCENARIO.findall(PAGE)
    assert {suite for suite, fault in named if suite != "suite"} <= set(suite_names())
    injected = {suite: scenarios_of(suite) for suite in suite_names()}
    assert [f"{suite}:{fault}" for suite, fault in named if suite != "suite" and fault not in injected[suite]] == []


def test_every_fault_that_a_suite_injects_is_named() -> None:
    named = {fault.partition("/")[0] for _, fault in SCENARIO.findall(PAGE)}
    assert {fault.partition("/")[0] for suite in suite_names() for fault in scenarios_of(suite)} - named == set()


def test_every_checker_stands_beside_its_promise() -> None:
    (listed,) = re.findall(r"^\| promise \| checkers \|\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", listed)) == {finding.checker for finding in check_all(Story().history())}


def test_every_promise_has_its_evidence() -> None:
    titles = re.findall(r"^## (P\d+ .*)$", PAGE, re.MULTILINE)
    assert [title.partition(" ")[0] for title in titles] == [f"P{number}" for number in range(1, 11)]
    assert [title for title in titles if not TEST.search(section(title))] == []


def test_the_tables_of_faults_use_the_words_that_are_explained() -> None:
    explained = {row[0].strip("*") for row in rows(section("Fault by fault")) if len(row) == 2}
    assert explained - {"word", "?"} == CELLS | NOTHING
    used = {cell.removesuffix(" ?") for row in FAULT_ROWS for cell in row[1:]}
    assert used == explained - {"word", "?"}
    assert {len(row) - 1 for row in FAULT_ROWS} == set(COLUMNS)


@pytest.mark.parametrize("row", FAULT_ROWS, ids=lambda row: str(row[0]).partition("]")[0].strip("["))
def test_every_fault_has_its_evidence_or_says_that_there_is_none(row: list[str]) -> None:
    fault, cells = row[0], row[1:]
    found = re.fullmatch(r"\[(.+)\]\(#([a-z-]+)\)", fault)
    assert found is not None
    title = found[1].capitalize()
    assert title.lower().replace(" ", "-") == found[2]
    text = section(title, "###")
    is_shown = any(cell not in NOTHING and not cell.endswith("?") for cell in cells)
    evidence = [line for line in text.splitlines() if "Not shown" not in line]
    assert bool(TEST.search(text) or SCENARIO.search("\n".join(evidence))) or not is_shown
    assert ("Not shown" in text) or not any(cell.endswith("?") for cell in cells)
