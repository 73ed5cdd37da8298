"""`stem health`: whether every store answers, how fast, and what to do when it does not."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from stem_actors.errors import UsageError
from stem_cli.connection import duration_of, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, Screen
from stem_cli.round_trips import Finding, check_stores

__all__ = ["run"]

_COLUMNS = ("Component", "Status", "Latency", "Message")


def run(args: argparse.Namespace, output: Output) -> int:
    """Check once, or with `--watch` until interrupted."""
    timeout, pause = duration_of(args.timeout, "--timeout"), duration_of(args.watch, "--watch")
    if not timeout:
        raise UsageError("--timeout needs a duration above 0, such as 5s")
    settings = resolved(args).settings
    if args.allow_insecure:
        settings = replace(settings, tls_allow_insecure=True)
    if pause is None:
        with output.progress("checking the stores"):
            findings = check_stores(settings, timeout, args.skip_backend)
        _show(findings, output)
        return ExitCode.OK if all(finding.is_well for finding in findings) else ExitCode.FAILED
    with _screen(output) as screen:
        while True:
            findings = check_stores(settings, timeout, args.skip_backend)
            if screen is None:
                _show(findings, output)
            else:
                screen.table("Stores (Ctrl-C ends this)", _COLUMNS, _rows(findings), _hints(findings))
            time.sleep(pause)


@contextmanager
def _screen(output: Output) -> Iterator[Screen | None]:
    if not output.is_live:
        yield None
        return
    with output.screen() as screen:
        yield screen


def _show(findings: Sequence[Finding], output: Output) -> None:
    if output.as_json:
        output.document([_json(finding) for finding in findings])
        return
    output.table(_COLUMNS, _rows(findings))
    for hint in _hints(findings):
        output.line(hint)


def _rows(findings: Sequence[Finding]) -> list[Sequence[object]]:
    return [
        (
            each.component,
            "ok" if each.is_well else "error",
            "" if each.latency is None else f"{each.latency * 1000:.1f} ms",
            each.message,
        )
        for each in findings
    ]


def _hints(findings: Sequence[Finding]) -> list[str]:
    return [f"{finding.component}: {hint}" for finding in findings for hint in finding.hints]


def _json(finding: Finding) -> dict[str, Any]:
    context = {
        **({"store": dict(finding.store)} if finding.store else {}),
        **({"tls": dict(finding.tls)} if finding.tls else {}),
        **({"hints": list(finding.hints)} if finding.hints else {}),
    }
    return {
        "component": finding.component,
        "status": "ok" if finding.is_well else "error",
        "message": finding.message,
        "latencyMs": None if finding.latency is None else round(finding.latency * 1000, 3),
        **({"context": context} if context else {}),
    }
