"""`stem bench`: how fast tasks run here."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

from stem_actors.clock import SystemClock
from stem_actors.errors import UsageError
from stem_cli.bench.bed import Bed
from stem_cli.bench.measurements import FULL, QUICK, chosen, measure, steps
from stem_cli.bench.report import print_report
from stem_cli.connection import resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["run"]

_FEWEST = 100


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure and report; `FAILED` when a task did not run as often as it should."""
    names, sizes = chosen(args.what), QUICK if args.quick else FULL
    if args.count is not None:
        if args.count < _FEWEST:
            raise UsageError(f"--tasks is a number from {_FEWEST}; fewer say nothing")
        sizes = replace(sizes, tasks=args.count)
    clock = SystemClock()
    began = clock.monotonic()
    with _ending_politely(), Bed(resolved(args).settings) as bed:
        with output.progress("starting", steps(names, sizes)) as progress:
            is_first = True

            def step(text: str) -> None:
                nonlocal is_first
                progress.advance(0 if is_first else 1)
                progress.say(text)
                is_first = False

            figures = list(measure(names, bed, sizes, step))
        print_report(figures, bed, args.quick, clock.monotonic() - began, output)
    return ExitCode.OK if all(figure.check is None or figure.check.is_well for figure in figures) else ExitCode.FAILED


@contextmanager
def _ending_politely() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, so that nothing we started stays behind."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
