"""The command line of `stem-chaos`."""

from __future__ import annotations

import argparse
from functools import cache

from stem_cli.parsers.base import CommandParser, Commands, Version, add_subcommand, epilog, subcommands_of

__all__ = ["build_chaos_parser"]


def build_chaos_parser() -> CommandParser:
    """The parser of `stem-chaos`. The namespace holds `handler`, the name of a function of `stem_chaos.command`, or None."""
    parser = CommandParser(
        prog="stem-chaos",
        description="Run tasks while faults are injected, and find out whether Stem keeps its promises here.",
        epilog=epilog(
            "stem-chaos run smoke",
            "stem-chaos run upgrade --broker redis://staging:6379/0",
            note="Exits with 0 when every promise held, 1 when one was broken, 64 when the command line is wrong, 70 when it "
            "could not run.",
        ),
    )
    _add_options(parser, suppress=False)
    commands = subcommands_of(parser)
    _add_run(commands)
    _add_command(commands, "list", "list_all", "list suites, faults and workloads", "stem-chaos list")
    check = _add_command(
        commands,
        "check",
        "check",
        "judge a run's history once more",
        "stem-chaos check stem-chaos-runs/20250131-080000-smoke-7",
        more="Also that of a run which was interrupted. Exits as `run` does.",
    )
    check.add_argument("history", metavar="HISTORY", help="directory of the run")
    report = _add_command(
        commands,
        "report",
        "report",
        "write a run's reports once more",
        "stem-chaos report stem-chaos-runs/20250131-080000-smoke-7",
        more="Writes report.json, report.xml (JUnit) and report.html into the run's directory. "
        "Exits with 0 whatever the verdict is.",
    )
    report.add_argument("history", metavar="HISTORY", help="directory of the run")
    return parser


def _add_run(commands: Commands) -> None:
    run = _add_command(
        commands,
        "run",
        "run",
        "run a suite and print its verdict",
        "stem-chaos run smoke --broker redis",
        "stem-chaos run smoke --schedule kill-executor/1s,freeze-broker/20s:5s --replay 7",
        "stem-chaos run soak --for 2h --app shop.tasks:app --workload staging.toml",
        "stem-chaos run upgrade --from 0.1.0",
        more="Nodes are started here, for the time of the run. A bare name starts a broker of the run's own; on one that is "
        "named by its URL the run keeps to a namespace of its own, or a file of its own beside the one named, and removes it at "
        "the end.",
    )
    run.add_argument("suite", metavar="SUITE", help="what to run; `stem-chaos list` names them")
    run.add_argument("--broker", metavar="URL|sqlite|redis|postgres", default="sqlite", help="where tasks wait (default: sqlite)")
    run.add_argument(
        "--schedule", metavar="TEXT", help="other faults than the suite's: FAULT/EVERY[:FOR], with commas between them"
    )
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", metavar="N", type=int, help="what chance begins with (default: another each time, and printed)")
    seeds.add_argument(
        "--replay", metavar="SEED", type=int, dest="seed", help="repeat tasks and faults of the run with this seed"
    )
    run.add_argument(
        "--for", metavar="DURATION", dest="duration", help="inject faults for so long, such as 2h (default: the suite's)"
    )
    run.add_argument("--app", "-A", metavar="MODULE:APP", help="run your own tasks, of this application; needs --workload")
    run.add_argument("--workload", metavar="FILE", help="which of them, how often: TOML, or JSON lines (.jsonl); needs --app")
    run.add_argument(
        "--from",
        metavar="VERSION|WHEEL",
        dest="old",
        help="begin with nodes of this version: a wheel, a version, or a git commit",
    )
    run.add_argument("--directory", metavar="DIR", help="keep the run here (default: a new one below stem-chaos-runs)")


def _add_command(commands: Commands, name: str, handler: str, summary: str, *examples: str, more: str = "") -> CommandParser:
    parser = add_subcommand(commands, name, summary, *examples, more=more, options=_options())
    parser.set_defaults(handler=handler, parser=parser)
    return parser


@cache
def _options() -> CommandParser:
    """Those of every subcommand, made once."""
    options = CommandParser(add_help=False)
    _add_options(options, suppress=True)
    return options


def _add_options(parser: CommandParser, suppress: bool) -> None:
    switch = argparse.SUPPRESS if suppress else False
    parser.add_argument("--json", action="store_true", default=switch, help="print JSON instead of text")
    parser.add_argument("--no-color", action="store_true", default=switch, help="no colours (so does NO_COLOR)")
    parser.add_argument("--version", action=Version)
