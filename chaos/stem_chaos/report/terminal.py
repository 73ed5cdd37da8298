"""The verdict on the terminal: a line for each promise, and under a broken one how, with the history of a task or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stem_chaos.checker.finding import Finding, Validity, Violation
from stem_chaos.history import History
from stem_chaos.report.evidence import Row, evidence_of
from stem_chaos.report.facts import figures_of, replay_command, seconds_into, verdict_of
from stem_cli.output import Output

__all__ = ["print_verdict"]

_VIOLATIONS = 5
_TASKS = 2
_ROWS = 40
_WORDS = {Validity.VALID: ("held", "green"), Validity.INVALID: ("BROKEN", "bold red"), Validity.UNKNOWN: ("unknown", "yellow")}


def print_verdict(findings: Sequence[Finding], history: History, directory: Path, output: Output) -> None:
    """Print it. `directory` is the run's, where the other reports are."""
    width = max((len(finding.checker) for finding in findings), default=0)
    shown: set[str] = set()
    for finding in findings:
        word, style = _WORDS[finding.validity]
        output.styled((f"{word:<8}", style), (f"{finding.checker:<{width}}  {figures_of(finding)}".rstrip(), ""))
        if finding.validity is Validity.UNKNOWN:
            output.line(f"{'':8}{'':{width}}  {finding.reason}")
        if finding.validity is Validity.INVALID:
            _print_broken(finding, history, shown, output)
    output.line("")
    broken = sum(finding.validity is Validity.INVALID for finding in findings)
    verdict = verdict_of(findings)
    text = f"{verdict}: {broken} of {len(findings)} promises" if broken else verdict
    output.styled((text, "bold red" if broken else "bold green" if verdict == "held" else "bold yellow"))
    output.fields({"repeat": replay_command(history.facts), "page": directory / "report.html"})


def _print_broken(finding: Finding, history: History, shown: set[str], output: Output) -> None:
    output.line(f"        {finding.promise} It was not so:")
    for violation in finding.violations[:_VIOLATIONS]:
        output.line(f"        - {_told(violation, history)}")
    left = int(finding.figures.get("violations", len(finding.violations))) - _VIOLATIONS
    if left > 0:
        output.line(f"        - and {left:,} times more")
    fresh = [each.task_id for each in finding.violations if each.task_id is not None and each.task_id not in shown]
    told: Mapping[str, Sequence[Row]] = evidence_of(history, list(dict.fromkeys(fresh))[:_TASKS])
    for task_id, rows in told.items():
        shown.add(task_id)
        output.line("")
        output.line(f"        task {task_id}:")
        for row in rows[:_ROWS]:
            text = f"        {row.seconds:9.3f} s  {row.what:<14}  {row.process:<18}  {row.detail}".rstrip()
            output.styled((text, "yellow" if row.is_fault else ""))
        if len(rows) > _ROWS:
            output.line(f"        and {len(rows) - _ROWS} operations more; the page has them all")
    output.line("")


def _told(violation: Violation, history: History) -> str:
    at = "" if violation.at is None else f"{seconds_into(history, violation.at):.3f} s: "
    return f"{at}{'' if violation.task_id is None else f'task {violation.task_id} '}{violation.text}"
