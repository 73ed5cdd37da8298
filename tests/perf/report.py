"""How a comparison looks: a table with what Stem is times better beside each figure, or JSON."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stem_cli.output import Output
from tests.perf.comparison import Plan, Result, ratio
from tests.perf.environment import ROOT
from tests.perf.measurements import FIGURES, Figure, Sizes
from tests.perf.servers import Server
from tests.perf.systems import EXECUTORS, STEM

__all__ = ["circumstances", "document", "print_report"]


def circumstances(server: Server) -> dict[str, Any]:
    """When and on what; asked before anything is measured, since the load is what others make."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "stem": _own_version(),
        "cpuCount": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "loadAvg": [round(each, 2) for each in os.getloadavg()],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "server": server.describe(),
    }


def _own_version() -> str:
    """The version, and which commit where the sources are a checkout."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return version
    return f"{version} ({done.stdout.strip()})" if done.returncode == 0 else version


def print_report(results: Mapping[str, Result], plan: Plan, about: Mapping[str, Any], seconds: float, output: Output) -> None:
    load = ", ".join(f"{each:.1f}" for each in about["loadAvg"])
    output.line(f"{about['date']}; {about['cpuCount']} processors, load before {load}; {about['system']}")
    output.line(f"Python {about['python']}, {about['server']}; {EXECUTORS} executor processes each")
    output.line(f"median of {plan.rounds} rounds, {seconds:.0f} s; in brackets: how many times better Stem is")
    output.line("")
    figures = {name: figure for name, figure in FIGURES.items() if any(result.samples[name] for result in results.values())}
    output.table(
        ("System", *(f"{figure.title}, {figure.unit}" for figure in figures.values())),
        [
            (result.title, *(_cell(name, figure, result, results[STEM], plan.sizes) for name, figure in figures.items()))
            for result in results.values()
        ],
    )
    output.line("")
    for name, result in results.items():
        versions = about["stem"] if name == STEM else ", ".join(f"{key} {value}" for key, value in result.versions.items())
        tasks = "" if result.share == 1 else f"; {result.share:.0%} of the backlog"
        results_kept = "" if result.keeps_results else "; keeps no results"
        output.line(f"{result.title}: {versions or 'not measured'}{tasks}{results_kept}")
    output.line("")
    for result in results.values():
        for measurement, failure in result.failures.items():
            output.line(f"{result.title}, {measurement} failed: {failure}")
        for measurement, check in result.checks.items():
            if not check.is_well:
                output.line(
                    f"{result.title}, {measurement}: of {check.expected:,} tasks {check.missing:,} did not run, "
                    f"{check.repeated:,} runs were too many"
                )
    if all(result.is_well for result in results.values()) and any(result.checks for result in results.values()):
        output.line("Every task ran exactly as often as it should; the tasks counted themselves, outside the broker.")


def _cell(name: str, figure: Figure, result: Result, stem: Result, sizes: Sizes) -> str:
    value, times = result.value(name), ratio(result, stem, name)
    if value is None:
        if name.partition("_")[0] in result.failures:
            return "failed"
        return figure.none.format(bound=sizes.bound) if result.samples[name] else ""
    return _number(value) if result is stem or times is None else f"{_number(value)} ({_times(times)}×)"


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def document(results: Mapping[str, Result], plan: Plan, about: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """All of it as one JSON document, every sample with it."""
    return {
        **about,
        "executors": EXECUTORS,
        "rounds": plan.rounds,
        "sizes": asdict(plan.sizes),
        "seconds": round(seconds, 1),
        "systems": [_json(name, result, results[STEM]) for name, result in results.items()],
    }


def _json(name: str, result: Result, stem: Result) -> dict[str, Any]:
    return {
        "name": name,
        "title": result.title,
        "versions": dict(result.versions),
        "share": result.share,
        "keepsResults": result.keeps_results,
        "figures": {
            figure: {
                "unit": FIGURES[figure].unit,
                "value": result.value(figure),
                "ratio": ratio(result, stem, figure),
                "samples": list(samples.values()),
            }
            for figure, samples in result.samples.items()
            if samples
        },
        "checks": {measurement: asdict(check) for measurement, check in result.checks.items()},
        "failures": result.failures,
    }
