"""What commands of `stem` have in common: global options, and options that several take."""

from __future__ import annotations

import argparse
from functools import cache

from stem_cli.parsers.base import CommandParser, Commands, Version, add_subcommand, subcommands_of

__all__ = [
    "REVOKING",
    "add_command",
    "add_consent",
    "add_environment_file",
    "add_global_options",
    "add_group",
    "add_paging",
    "add_pausing",
    "add_process_files",
    "add_revoking",
]

REVOKING = (
    "A task that waits never starts; one that runs goes on unless --terminate is given. It is stored, so it holds for "
    "workers that start later: exits with 0 also when no worker is up."
)


def add_group(commands: Commands, name: str, summary: str, *examples: str) -> Commands:
    """A group of commands, to which these are added."""
    parser = add_subcommand(commands, name, summary, *examples, options=_global_options())
    return subcommands_of(parser)


def add_command(commands: Commands, name: str, handler: str, summary: str, *examples: str, more: str = "") -> CommandParser:
    """A command; `handler` is `module:function` in this package's parent."""
    parser = add_subcommand(commands, name, summary, *examples, more=more, options=_global_options())
    parser.set_defaults(handler=handler, parser=parser)
    return parser


@cache
def _global_options() -> CommandParser:
    """Those of every subcommand, made once and not for each of them: argparse takes its time over an option."""
    options = CommandParser(add_help=False)
    add_global_options(options, suppress=True)
    return options


def add_global_options(parser: CommandParser, suppress: bool) -> None:
    """Options accepted before and after a subcommand; there they must not undo with a default what was said before it."""
    default = argparse.SUPPRESS if suppress else None
    switch = argparse.SUPPRESS if suppress else False
    group = parser.add_argument_group("global options")
    group.add_argument("--broker", metavar="URL", dest="broker_url", default=default, help="where tasks wait (STEM_BROKER_URL)")
    group.add_argument(
        "--backend",
        metavar="URL",
        dest="result_backend_url",
        default=default,
        help="where results are kept (STEM_RESULT_BACKEND_URL)",
    )
    group.add_argument("--namespace", metavar="NAME", default=default, help="prefix of everything in the stores (STEM_NAMESPACE)")
    group.add_argument("--app", "-A", metavar="MODULE[:ATTR]", default=default, help="the application object (STEM_APP)")
    group.add_argument("--config", metavar="FILE", default=default, help="TOML file with settings (STEM_CONFIG)")
    group.add_argument("--log-level", metavar="LEVEL", default=default, help="debug, info, warning or error (STEM_LOG_LEVEL)")
    group.add_argument("--json", action="store_true", default=switch, help="print JSON instead of text")
    group.add_argument("--no-color", action="store_true", default=switch, help="no colours (so does NO_COLOR)")
    group.add_argument("--version", action=Version)


def add_paging(parser: CommandParser) -> None:
    parser.add_argument("--limit", "-l", metavar="N", type=int, default=50, help="this many at most (default: 50)")
    parser.add_argument("--offset", metavar="N", type=int, default=0, help="leave out the first N")


def add_consent(parser: CommandParser) -> None:
    parser.add_argument("--yes", "-y", action="store_true", help="do it without asking")


def add_revoking(parser: CommandParser) -> None:
    """How tasks are revoked, whichever command does it."""
    parser.add_argument("--terminate", action="store_true", help="interrupt it at once if it runs; kill it if it ignores that")
    parser.add_argument("--reason", metavar="TEXT", help="stands in the task's record")
    parser.add_argument("--requester", metavar="NAME", default="stem-cli", help="who asks for it (default: stem-cli)")
    parser.add_argument("--expires-in", metavar="DURATION", help="forget it after so long (default: 7d)")


def add_pausing(parser: CommandParser, verb: str) -> None:
    """How queues are paused and resumed, whichever command does it."""
    parser.add_argument("--reason", metavar="TEXT", help=f"stands in the workers' logs (default: queue {verb}d by stem-cli)")
    parser.add_argument("--requester", metavar="NAME", default="stem-cli", help="who asks for it (default: stem-cli)")


def add_process_files(parser: CommandParser) -> None:
    parser.add_argument("--pidfile", metavar="PATH", help="the node's pid file")
    parser.add_argument("--logfile", metavar="PATH", help="the node's log file")
    add_environment_file(parser)


def add_environment_file(parser: CommandParser) -> None:
    parser.add_argument("--env-file", metavar="FILE", help="file of KEY=VALUE lines, which go before the environment")
