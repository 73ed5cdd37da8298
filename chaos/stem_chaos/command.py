"""`stem-chaos`: runs suites, and judges and reports what runs left behind."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stem_cli.edge import guarded
from stem_cli.exit_codes import ExitCode
from stem_cli.parsers.chaos import build_chaos_parser

if TYPE_CHECKING:
    from stem_chaos.checker.finding import Finding
    from stem_chaos.history import History
    from stem_chaos.runner import Orders
    from stem_cli.output import Output

__all__ = ["main"]

_BROKEN = ExitCode.NOTHING
_SEEDS = 2**31


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 held, 1 broken, 64 wrong usage, 70 could not run."""
    args = build_chaos_parser().parse_args(argv)
    if args.handler is None:
        args.parser.print_help(sys.stderr)
        return ExitCode.USAGE

    def run() -> int:
        from stem_cli.output import Output

        return _HANDLERS[args.handler](args, Output(args.json, args.no_color))

    return guarded(args.parser.prog, run)


# ---------------------------------------------------------------- run


def run(args: argparse.Namespace, output: Output) -> int:
    """Run a suite, judge it, write its reports."""
    from stem_chaos.runner import Run
    from stem_chaos.watch import Watch

    orders = _orders(args)
    run = Run(orders, watch := Watch(output, orders))
    with _ending_politely(), watch:
        try:
            run.carry_out()
        except BaseException:
            output.message(f"the run has not come to its end; its history is in {orders.directory}")
            raise
    for fault, why in run.impossible.items():
        output.message(f"left out: {fault} ({why})")
    return _conclude(orders.directory, output)


def _orders(args: argparse.Namespace) -> Orders:
    import secrets
    from dataclasses import replace

    from stem_actors.errors import UsageError
    from stem_chaos.place import find_place
    from stem_chaos.runner import Orders
    from stem_chaos.store import choose_directory
    from stem_chaos.suites import load_suite
    from stem_chaos.workload.own import read_workload
    from stem_cli.connection import duration_of

    if (args.app is None) != (args.workload is None):
        raise UsageError("--app and --workload belong together: whose tasks, and which of them how often")
    suite, duration = load_suite(args.suite), duration_of(args.duration, "--for")
    if duration is not None:
        suite = replace(suite, faults=duration)
    own = None if args.workload is None else read_workload(Path(args.workload), args.app)
    seed = secrets.randbelow(_SEEDS) if args.seed is None else args.seed
    place = find_place(args.broker)
    return Orders(suite, place, seed, choose_directory(args.directory, suite.name, seed), args.schedule, own, args.old)


@contextmanager
def _ending_politely() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, so that nothing we started stays behind; and let none of them do so twice."""

    def interrupt(_number: int, _frame: object) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- judge and report


def check(args: argparse.Namespace, output: Output) -> int:
    """Judge a history once more."""
    from stem_chaos.verdict import has_held

    history, findings = _judged(Path(args.history))
    _print(findings, history, Path(args.history), output)
    return ExitCode.OK if has_held(findings) else _BROKEN


def report(args: argparse.Namespace, output: Output) -> int:
    """Write the reports of a history once more."""
    directory = Path(args.history)
    history, findings = _judged(directory)
    written = _write(findings, history, directory)
    if output.as_json:
        output.document({"reports": [str(path) for path in written]})
    else:
        for path in written:
            output.line(str(path))
    return ExitCode.OK


def _conclude(directory: Path, output: Output) -> int:
    from stem_chaos.verdict import has_held

    with output.progress("judging"):
        history, findings = _judged(directory)
        _write(findings, history, directory)
    _print(findings, history, directory, output)
    return ExitCode.OK if has_held(findings) else _BROKEN


def _judged(directory: Path) -> tuple[History, list[Finding]]:
    from stem_actors.errors import UsageError
    from stem_chaos.history import CannotRead, read_history
    from stem_chaos.verdict import judge

    try:
        history = read_history(directory)
    except CannotRead as error:
        raise UsageError(str(error)) from error
    return history, judge(history)


def _write(findings: Sequence[Finding], history: History, directory: Path) -> list[Path]:
    from stem_chaos.report.document import write_json
    from stem_chaos.report.junit import write_junit
    from stem_chaos.report.page import write_page

    written = []
    for write, name in ((write_json, "report.json"), (write_junit, "report.xml"), (write_page, "report.html")):
        write(findings, history, directory / name)
        written.append(directory / name)
    return written


def _print(findings: Sequence[Finding], history: History, directory: Path, output: Output) -> None:
    from stem_chaos.report.document import as_document
    from stem_chaos.report.terminal import print_verdict

    if output.as_json:
        output.document(as_document(findings, history))
    else:
        print_verdict(findings, history, directory, output)


# ---------------------------------------------------------------- list


def list_all(args: argparse.Namespace, output: Output) -> int:
    """Print suites, faults and workloads."""
    from stem_chaos.nemesis.all import FAULTS
    from stem_chaos.suites import load_suite, suite_names
    from stem_chaos.workload.all import WORKLOADS

    suites = [load_suite(name) for name in suite_names()]
    faults = [(name, _first_sentence(fault), fault.lasts) for name, fault in sorted(FAULTS.items())]
    workloads = [(name, _first_sentence(sys.modules[kind.__module__])) for name, kind in WORKLOADS.items()]
    if output.as_json:
        output.document(
            {
                "suites": [{"name": each.name, "summary": each.summary, "brokers": list(each.brokers)} for each in suites],
                "faults": [{"name": name, "does": does, "lasts": lasts} for name, does, lasts in faults],
                "workloads": [{"name": name, "does": does} for name, does in workloads],
            }
        )
        return ExitCode.OK
    output.table(("suite", "what it is", "brokers"), [(each.name, each.summary, ", ".join(each.brokers)) for each in suites])
    output.line("")
    rows = [(name, lasts or None, does) for name, does, lasts in faults if "/" not in name]
    output.table(("fault", "lasts (s)", "what it does"), rows)
    for family in sorted({name.partition("/")[0] for name in FAULTS if "/" in name}):
        output.line(f"{family} alone: {', '.join(sorted(name for name in FAULTS if name.startswith(f'{family}/')))}")
    output.line("")
    output.table(("workload", "what it is"), workloads)
    return ExitCode.OK


def _first_sentence(thing: object) -> str:
    """Of what a fault says that it does, or else of a docstring."""
    text = " ".join(str(getattr(thing, "does", None) or thing.__doc__ or "").split())
    return text.partition(". ")[0].removesuffix(".")


_HANDLERS: dict[str, Callable[[argparse.Namespace, Output], int]] = {
    "run": run,
    "check": check,
    "report": report,
    "list_all": list_all,
}


if __name__ == "__main__":
    sys.exit(main())
