"""How the figures of `stem bench` look: a table, or JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from stem_actors.config import masked_url
from stem_cli.bench.bed import Bed
from stem_cli.bench.measurements import Figure
from stem_cli.output import Output

__all__ = ["print_report"]


def print_report(figures: Sequence[Figure], bed: Bed, is_quick: bool, seconds: float, output: Output) -> None:
    machine, broker = _machine(), _broker(bed)
    if output.as_json:
        output.document(
            {
                "broker": broker,
                "machine": machine,
                "quick": is_quick,
                "seconds": round(seconds, 1),
                "figures": [_json(figure) for figure in figures],
            }
        )
        return
    load = ", ".join(f"{each:.1f}" for each in machine["loadAvg"])
    details = ", ".join(f"{key} {value}" for key, value in broker.items() if value is not None and key != "url")
    output.line(f"{details}; Python {machine['python']}, {machine['cpuCount']} processors, load before {load}; {seconds:.0f} s")
    output.table(
        ("Measurement", "Result", "Unit", "Broker alone", "Of that", "Broker alone does"),
        [
            (
                figure.text,
                figure.note if figure.value is None else _number(figure.value),
                figure.unit,
                None if figure.raw is None else _number(figure.raw),
                None if figure.ratio is None else f"{100 * figure.ratio:.0f} %",
                figure.raw_what,
            )
            for figure in figures
        ],
    )
    for figure in figures:
        if figure.details:
            costs = ", ".join(
                f"{key.removesuffix('MicrosecondsPerTask')} {value:.1f} µs" for key, value in figure.details.items()
            )
            output.line(f"{figure.name}: processor time per task: {costs}")
    checks = [figure for figure in figures if figure.check is not None]
    for figure in checks:
        assert figure.check is not None
        if not figure.check.is_well:
            lost, repeated = figure.check.missing, figure.check.repeated
            output.line(
                f"{figure.name}: of {figure.check.expected:,} tasks {lost:,} did not run, {repeated:,} runs were too many"
            )
    if checks and all(figure.check is None or figure.check.is_well for figure in checks):
        output.line("Every task ran exactly as often as it should; the tasks counted themselves, outside the broker.")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _json(figure: Figure) -> dict[str, Any]:
    check = figure.check
    return {
        "name": figure.name,
        "text": figure.text,
        "unit": figure.unit,
        "value": figure.value,
        "samples": list(figure.samples),
        "raw": figure.raw,
        "rawWhat": figure.raw_what,
        "ratio": figure.ratio,
        "check": None if check is None else {"expected": check.expected, "missing": check.missing, "repeated": check.repeated},
        "note": figure.note,
        "details": dict(figure.details),
    }


def _machine() -> dict[str, Any]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"host": os.uname().nodename, "cpuCount": count, "loadAvg": list(os.getloadavg()), "python": platform.python_version()}


def _broker(bed: Bed) -> dict[str, Any]:
    synchronous = bed.settings.sqlite_synchronous if bed.technology in ("sqlite", "file") else None
    return {"kind": bed.technology, "url": masked_url(bed.settings.broker_url), "synchronous": synchronous}
