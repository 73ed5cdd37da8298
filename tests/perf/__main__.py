"""`python -m tests.perf`: Stem beside its peers, in one run on one machine.

comparison.py    the rounds: every system in turn
trial.py         one measurement of one system, in a process of its own
measurements.py  what is measured, one function each
bed.py           a system's workers, and what its tasks recorded
servers.py       what the systems run on
systems.py       what is asked of a system, and which there are
peers/           one module for each
tasks.py         the tasks that all of them run
environment.py   where they are installed
report.py        table and JSON
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from stem_actors.clock import SystemClock
from stem_actors.errors import UsageError
from stem_cli.edge import guarded
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output
from stem_cli.parsers.base import CommandParser
from tests.perf.comparison import Plan, compare
from tests.perf.environment import ROOT, Environment
from tests.perf.measurements import MEASUREMENTS, Sizes
from tests.perf.report import circumstances, document, print_report
from tests.perf.servers import SERVERS
from tests.perf.systems import ON_BROKER, STEM

__all__: list[str] = []

_FEWEST = 100
_PEERS = "; ".join(f"on {broker} {', '.join(names[1:])}" for broker, names in ON_BROKER.items())


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m tests.perf",
        description="Compare Stem with its peers: on a server of their own, in turns, by the same tasks.",
        epilog="Exits with 70 when something could not be measured, or a task did not run exactly once.",
    )
    parser.add_argument("--broker", choices=list(SERVERS), default="redis", help="what the systems run on (default: redis)")
    parser.add_argument("--only", metavar="NAMES", help=f"only these beside Stem, with commas between them: {_PEERS}")
    parser.add_argument("--what", metavar="NAMES", help=f"only these measurements: {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--tasks", metavar="N", type=int, default=100_000, help="tasks of Stem's backlog; others get a share (default: 100000)"
    )
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all samples to this file as well")
    parser.add_argument(
        "--venv",
        metavar="DIR",
        type=Path,
        default=ROOT / ".venv-perf",
        help="where the peers are installed (default: .venv-perf)",
    )
    return parser


def _run(args: argparse.Namespace, output: Output) -> int:
    plan = _plan(args)
    if args.json is not None and not os.access(args.json.resolve().parent, os.W_OK):
        raise UsageError(f"--json is {args.json}, and nothing can be written there")
    environment = Environment(args.venv)
    clock = SystemClock()
    with SERVERS[args.broker]() as server:
        environment.set_up(output.message)
        about, began = circumstances(server), clock.monotonic()
        results = compare(plan, environment, server, output.message)
    seconds = clock.monotonic() - began
    print_report(results, plan, about, seconds, output)
    if args.json is not None:
        args.json.write_text(json.dumps(document(results, plan, about, seconds), ensure_ascii=False, indent=2) + "\n")
    return ExitCode.OK if all(result.is_well for result in results.values()) else ExitCode.FAILED


def _plan(args: argparse.Namespace) -> Plan:
    if args.tasks < _FEWEST:
        raise UsageError(f"--tasks is a number from {_FEWEST}; fewer say nothing")
    if args.rounds < 1:
        raise UsageError("--rounds is a number from 1")
    systems = [STEM, *(name for name in _chosen("--only", args.only, ON_BROKER[args.broker]) if name != STEM)]
    return Plan(systems, _chosen("--what", args.what, MEASUREMENTS), args.rounds, Sizes(tasks=args.tasks))


def _chosen(option: str, value: str | None, known: Iterable[str]) -> list[str]:
    """What an option names, in our order."""
    named = list(known) if value is None else [word.strip() for word in value.split(",") if word.strip()]
    if not named or not set(named) <= set(known):
        raise UsageError(f"{option} is {value!r}; there are {', '.join(known)}")
    return [name for name in known if name in named]


def main(words: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # so that what we started ends with us
    return guarded(parser.prog, lambda: _run(args, Output()))


if __name__ == "__main__":
    sys.exit(main())
