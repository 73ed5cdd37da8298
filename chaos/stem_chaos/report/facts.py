"""What every report says of a run as a whole: its facts, how to repeat it, its verdict in a word."""

from __future__ import annotations

import datetime as dt
import itertools
import shlex
from collections.abc import Iterable
from contextlib import suppress

from stem_actors.errors import UsageError
from stem_chaos.checker.faults import read_faults
from stem_chaos.checker.finding import Finding, Validity
from stem_chaos.history import History, RunFacts
from stem_chaos.place import PRIVATE
from stem_chaos.suites import load_suite
from stem_cli.output import readable_duration

__all__ = ["duration_of", "facts_of", "figures_of", "replay_command", "seconds_into", "verdict_of"]


def verdict_of(findings: Iterable[Finding]) -> str:
    """`held`, `held as far as is known` or `broken`."""
    validities = {finding.validity for finding in findings}
    if Validity.INVALID in validities:
        return "broken"
    return "held" if Validity.UNKNOWN not in validities else "held as far as is known"


def facts_of(history: History) -> dict[str, str]:
    """What the run was, for people, in the order in which it is told."""
    facts = history.facts
    began = history.operations[0].wall if history.operations else None
    told = {
        "suite": facts.suite,
        "broker": facts.broker,
        "seed": str(facts.seed),
        "schedule": facts.schedule or "no faults",
        "workloads": ", ".join(facts.workloads),
        "cluster": " × ".join(
            (_counted(facts.nodes, "node"), _counted(facts.workers, "worker"), _counted(facts.concurrency, "executor"))
        ),
        "visibility timeout": readable_duration(facts.visibility_timeout),
        "deaths allowed": str(facts.max_deliveries),
        "began": None if began is None else dt.datetime.fromtimestamp(began).astimezone().isoformat(timespec="seconds"),
        "lasted": readable_duration(duration_of(history)),
        "operations": f"{len(history.operations):,}",
        "faults": f"{len(read_faults(history).windows):,}",
        "versions": ", ".join(f"{name}: {version}" for name, version in facts.versions.items()),
    }
    return {name: text for name, text in told.items() if text}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def replay_command(facts: RunFacts) -> str:
    """The command that repeats a run: the same tasks and faults at the same times."""
    words = ["stem-chaos", "run", facts.suite, "--broker", facts.broker, "--replay", str(facts.seed)]
    if "own" in facts.workloads:
        words += ["--app", "MODULE:APP", "--workload", "FILE"]
    if "old" in facts.versions:
        words += ["--from", facts.versions.get("from") or facts.versions["old"].partition(" (")[0]]
    if facts.duration is not None and facts.duration != _usual_duration(facts):
        words += ["--for", f"{facts.duration:.0f}s" if facts.duration % 1 == 0 else f"{round(1000 * facts.duration)}ms"]
    if facts.schedule and not _is_usual(facts):
        words += ["--schedule", facts.schedule.replace(", ", ",")]
    return shlex.join(words)


def _usual_duration(facts: RunFacts) -> float | None:
    with suppress(UsageError):
        return load_suite(facts.suite).faults
    return None


def _is_usual(facts: RunFacts) -> bool:
    """Whether this is the schedule that the suite has anyway."""
    with suppress(UsageError):
        suite = load_suite(facts.suite)
        places = itertools.product(PRIVATE, (True, False), (True, False))
        return any(facts.schedule == suite.schedule_on(*place) for place in places)
    return False


def duration_of(history: History) -> float:
    """Seconds from the start of the run to its end, or as far as the history goes."""
    last = history.operations[-1].at if history.operations else history.facts.started_at
    return max(0.0, (history.facts.ended_at or last) - history.facts.started_at)


def seconds_into(history: History, at: float) -> float:
    """A moment as seconds since the start of the run."""
    return at - history.facts.started_at


def figures_of(finding: Finding) -> str:
    """A finding's figures in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {_number(figure)}" for name, figure in finding.figures.items())


def _number(figure: object) -> str:
    if isinstance(figure, float):
        return f"{figure:,.3f}".rstrip("0").rstrip(".")
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
