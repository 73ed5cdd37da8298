"""The rules of the house that no other tool checks: what is packaged, what is declared, what the layers leave out."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"stem_actors": ROOT / "stem_actors", "stem_cli": ROOT / "cli/stem_cli", "stem_chaos": ROOT / "chaos/stem_chaos"}
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def written_packages() -> dict[str, Path]:
    """The packages that have code; one that is only a `py.typed` so far is not shipped."""
    return {name: folder for name, folder in SOURCES.items() if (folder / "__init__.py").exists()}


def imported_names(source: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case _:
                pass


@pytest.mark.parametrize("name", SOURCES)
def test_every_package_says_that_it_is_typed(name: str) -> None:
    assert (SOURCES[name] / "py.typed").is_file()


@pytest.mark.parametrize("name", written_packages())
def test_every_folder_with_code_is_a_package(name: str) -> None:
    # setuptools leaves out, without a word, a folder that has no __init__.py.
    folders = {source.parent for source in SOURCES[name].rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", written_packages())
def test_every_file_that_is_not_code_is_packaged(name: str) -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
    packages = [path.parent for path in SOURCES[name].rglob("__init__.py")]
    packaged = {path for package in packages for pattern in patterns for path in package.glob(pattern)}
    others = {path for path in SOURCES[name].rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert {str(path.relative_to(ROOT)) for path in others - packaged} == set()


def test_every_top_module_has_its_layer() -> None:
    (contract,) = [each for each in PYPROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    listed = {name.strip("() ") for layer in contract["layers"] for name in re.split(r"[|:]", layer)}
    modules = {path.stem for path in (ROOT / "stem_actors").glob("*.py")} - {"__init__"}
    modules |= {path.parent.name for path in (ROOT / "stem_actors").glob("*/__init__.py")}
    assert {f"stem_actors.{module}" for module in modules} - listed == set()


def test_commands_are_declared_and_exist() -> None:
    scripts = PYPROJECT["project"]["scripts"]
    assert scripts == {
        "stem": "stem_cli.command:main",
        "stem-node": "stem_cli.node_command:main",
        "stem-chaos": "stem_chaos.command:main",
    }
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_the_parsers_stand_alone() -> None:
    # The man pages are built from them where nothing else of ours is installed.
    imported = {name for source in (ROOT / "cli/stem_cli/parsers").rglob("*.py") for name in imported_names(source)}
    others = {name.partition(".")[0] for name in imported if not name.startswith("stem_cli.parsers.")}
    assert others - sys.stdlib_module_names == {"rich_argparse"}


def test_every_imported_library_is_a_declared_dependency() -> None:
    project = PYPROJECT["project"]
    extras = [requirement for group in project.get("optional-dependencies", {}).values() for requirement in group]
    declared = {normal(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in [*project["dependencies"], *extras]}
    providers = packages_distributions()
    imported = {
        name.partition(".")[0]: source
        for folder in written_packages().values()
        for source in folder.rglob("*.py")
        if "contrib" not in source.parts  # integrations import a framework that the user has
        for name in imported_names(source)
    }
    undeclared = {
        f"{root} ({source.relative_to(ROOT)})"
        for root, source in imported.items()
        if root not in sys.stdlib_module_names and root not in SOURCES
        if declared.isdisjoint(normal(provider) for provider in providers.get(root, [root]))
    }
    assert undeclared == set()


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []
