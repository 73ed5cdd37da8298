"""What every command line of ours is made of: the parser with our errors and help, and how subcommands are added to one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

__all__ = ["SETTINGS_NOTE", "CommandParser", "Commands", "Version", "add_subcommand", "epilog", "subcommands_of"]

USAGE_ERROR = 64  # argparse's own 2 is taken by nothing, and a shell's "misuse of builtins" besides
SETTINGS_NOTE = "Settings can also be given as STEM_* variables or in a file (--config); `stem config show` lists them."

# What subcommands are added to. As text, since argparse has no such class in brackets when it runs.
Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


class Version(argparse.Action):
    """Prints the version of the distribution; looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("stem-actors")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"{parser.prog.split()[0]} {number}")
        parser.exit(0)


class CommandParser(argparse.ArgumentParser):
    """An argument parser with our exit code and help. Long options are written out: abbreviations change with us."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _help_formatter(), **rest})

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _help_formatter() -> type[argparse.HelpFormatter]:
    """Help in colour for a terminal. It takes rich, which is slow to load, so it is for terminals only."""
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            from rich_argparse import RawDescriptionRichHelpFormatter
        except ImportError:  # the man pages are built without it at need
            pass
        else:
            return RawDescriptionRichHelpFormatter
    return argparse.RawDescriptionHelpFormatter


def subcommands_of(parser: CommandParser) -> Commands:
    """Let a parser have subcommands. Without one of them nothing is run: `handler` is None."""
    parser.set_defaults(handler=None, parser=parser)
    return parser.add_subparsers(metavar="COMMAND", title="commands")


def add_subcommand(
    commands: Commands, name: str, summary: str, *examples: str, more: str = "", options: CommandParser
) -> CommandParser:
    """A subcommand that has its help and, so far, the options of another parser."""
    description = f"{summary[0].upper()}{summary[1:]}. {more}".strip()
    return commands.add_parser(name, help=summary, description=description, epilog=epilog(*examples), parents=[options])


def epilog(*examples: str, note: str = "") -> str:
    """What stands at the end of a help: examples, and a note below them."""
    lines = "\n  ".join([f"example{'s' if len(examples) > 1 else ''}:", *examples])
    return f"{lines}\n\n{note}" if note else lines
