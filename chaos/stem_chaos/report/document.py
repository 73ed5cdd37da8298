"""The report as one JSON document: for programs, and to compare runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stem_chaos.checker.finding import Finding, Violation
from stem_chaos.history import History
from stem_chaos.report.evidence import evidence_of, violated_tasks
from stem_chaos.report.facts import facts_of, replay_command, seconds_into, verdict_of
from stem_chaos.report.timeline import read_timeline

__all__ = ["MOST_TASKS", "as_document", "write_json"]

MOST_TASKS = 50
"""Violated tasks whose whole history is told."""


def as_document(findings: Sequence[Finding], history: History) -> dict[str, Any]:
    """Plain data. Times are seconds since the start of the run."""
    evidence = evidence_of(history, violated_tasks(findings)[:MOST_TASKS])
    return {
        "verdict": verdict_of(findings),
        "replay": replay_command(history.facts),
        "facts": asdict(history.facts),
        "told": facts_of(history),
        "findings": [_finding(finding, history) for finding in findings],
        "tasks": {task_id: [asdict(row) for row in rows] for task_id, rows in evidence.items()},
        "timeline": asdict(read_timeline(history)),
    }


def write_json(findings: Sequence[Finding], history: History, path: Path) -> None:
    path.write_text(json.dumps(as_document(findings, history), indent=1, default=str) + "\n", encoding="utf-8")


def _finding(finding: Finding, history: History) -> dict[str, Any]:
    return {
        "checker": finding.checker,
        "promise": finding.promise,
        "validity": finding.validity.value,
        "reason": finding.reason,
        "figures": dict(finding.figures),
        "violations": [_violation(violation, history) for violation in finding.violations],
    }


def _violation(violation: Violation, history: History) -> dict[str, Any]:
    seconds = None if violation.at is None else round(seconds_into(history, violation.at), 6)
    return {"text": violation.text, "task_id": violation.task_id, "seconds": seconds}
