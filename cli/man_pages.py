"""Builds the man pages when a distribution is built: one page for each command, all from the parsers.

argparse-manpage writes what argparse knows: name, description, options. What it leaves out or gets wrong is set here: synopsis,
examples, the list of a group's commands, cross references, and a date that man can read. The pages go to cli/man and, with an
installation, to share/man/man1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from argparse_manpage.manpage import Manpage
from setuptools.command.build_py import build_py

__all__ = ["BuildPy", "write_pages"]

HERE = Path(__file__).parent
_SUMMARIES = {
    "stem": "operate a Stem task system",
    "stem-node": "run and supervise the Stem workers of a host",
    "stem-chaos": "run tasks while faults are injected and judge what Stem promises",
}


class BuildPy(build_py):
    """As setuptools has it, with the man pages made first and added to what is installed."""

    def run(self) -> None:
        metadata = self.distribution.metadata
        pages = write_pages(HERE / "man", f"{metadata.name} {metadata.version}")
        files = [str(page.relative_to(HERE.parent)) for page in pages]
        self.distribution.data_files = [*(self.distribution.data_files or []), ("share/man/man1", files)]
        super().run()


class Command(NamedTuple):
    """A command, as the man pages know it. `commands`: names and summaries of those that a group consists of."""

    parser: argparse.ArgumentParser
    summary: str
    commands: dict[str, str]
    group: str | None

    @property
    def name(self) -> str:
        return _hyphenated(self.parser.prog)


def write_pages(folder: Path, source: str) -> list[Path]:
    """Write a page for every command and group of commands, in place of those that are there; `source` is name and version."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.1"):
        old.unlink()
    written = []
    for command in _all_commands():
        page = folder / f"{command.name}.1"
        page.write_text(_page(command, source), encoding="utf-8")
        written.append(page)
    return written


def _all_commands() -> Iterator[Command]:
    sys.path.insert(0, str(HERE))  # nothing of ours is installed where a distribution is built
    from stem_cli.parsers.all import BUILDERS

    for name, build in BUILDERS.items():
        yield from _commands(build(), _SUMMARIES[name], None)


def _commands(parser: argparse.ArgumentParser, summary: str, group: str | None) -> Iterator[Command]:
    subparsers = _subparsers(parser._actions)
    if subparsers is None:
        yield Command(parser, summary, {}, group)
        return
    summaries = {each.dest: each.help or "" for each in subparsers._choices_actions}
    name = _hyphenated(parser.prog)
    yield Command(parser, summary, {f"{name}-{each}": text for each, text in summaries.items()}, group)
    for each, text in summaries.items():
        yield from _commands(subparsers.choices[each], text, name)


def _subparsers(actions: Sequence[argparse.Action]) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    return next((each for each in actions if isinstance(each, argparse._SubParsersAction)), None)


# ---------------------------------------------------------------- one page


def _page(command: Command, source: str) -> str:
    parser = command.parser
    if sys.version_info >= (3, 14):
        parser.color = False
    words = parser.format_usage().split()[1:]
    synopsis = f".B {_escaped(parser.prog)}\n{_escaped(' '.join(words[len(parser.prog.split()) :]))}"
    examples, notes = _epilog(parser)
    # What sections of our own say is taken from the parser, which nobody else has.
    parser.prog, parser.epilog = command.name, None
    parser._action_groups = [group for group in parser._action_groups if _subparsers(group._group_actions) is None]
    page = Manpage(parser, {"description": command.summary, "manual_title": "Stem"})
    page.source = source
    page.add_section("synopsis", "=", synopsis)
    if command.commands:
        entries = (f".TP\n\\fB{_escaped(name)}\\fR(1)\n{_escaped(text)}" for name, text in command.commands.items())
        page.add_section("commands", "=", "\n".join(entries))
    page.add_section("examples", "=", f".nf\n{_escaped(examples)}\n.fi")
    if notes:
        page.add_section("notes", "=", _escaped(notes))
    page.add_section("see also", "=", ",\n".join(f"\\fB{_escaped(name)}\\fR(1)" for name in _see_also(command)))
    return _with_plain_date(str(page), page.date)


def _epilog(parser: argparse.ArgumentParser) -> tuple[str, str]:
    """The examples, one a line, and what else a parser says at its end."""
    first, _, rest = (parser.epilog or "").partition("\n\n")
    title, *examples = first.splitlines()
    assert title.startswith("example"), f"{parser.prog} has no examples"
    return "\n".join(line.strip() for line in examples), rest


def _see_also(command: Command) -> list[str]:
    others = [name for name in _SUMMARIES if name != command.name]
    return [command.group, *(name for name in others if name != command.group)] if command.group else others


def _with_plain_date(page: str, date: str) -> str:
    """The title's date is data, not text: an escaped hyphen makes it unreadable."""
    first, _, rest = page.partition("\n")
    return f"{first.replace(_escaped(date), date)}\n{rest}"


def _hyphenated(prog: str) -> str:
    return prog.replace(" ", "-")


def _escaped(text: str) -> str:
    """Text as roff takes it: hyphens that can be copied, and no line taken for a request."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)
