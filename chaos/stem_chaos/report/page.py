"""The report as one HTML page that needs nothing else: no script, no font, no address; `page.html` beside this is its form.

Whatever comes from a history is escaped, and the page forbids itself to load anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from stem_chaos.checker.finding import Finding, Validity, Violation
from stem_chaos.history import History
from stem_chaos.report.chart import draw_timeline
from stem_chaos.report.document import MOST_TASKS
from stem_chaos.report.evidence import Row, evidence_of, violated_tasks
from stem_chaos.report.facts import facts_of, figures_of, replay_command, seconds_into, verdict_of
from stem_chaos.report.timeline import Band, Timeline, read_timeline

__all__ = ["write_page"]

_VIOLATIONS = 50
_ROWS = 500
_BANDS = 1000
_LONG = 60
_WORDS = {Validity.VALID: "held", Validity.INVALID: "broken", Validity.UNKNOWN: "unknown"}


def write_page(findings: Sequence[Finding], history: History, path: Path) -> None:
    timeline = read_timeline(history)
    wanted = violated_tasks(findings)
    evidence = evidence_of(history, wanted[:MOST_TASKS])
    broken_at = [
        seconds_into(history, violation.at)
        for finding in findings
        for violation in finding.violations
        if violation.at is not None
    ]
    form = Template(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    page = form.substitute(
        title=escape(f"{history.facts.suite} on {history.facts.broker}"),
        verdict=escape(verdict_of(findings)),
        tone={"held": "held", "broken": "broken"}.get(verdict_of(findings), "unknown"),
        summary=escape(_summary(findings)),
        command=escape(replay_command(history.facts)),
        facts="".join(_fact(name, text) for name, text in facts_of(history).items()),
        promises="".join(_promise(finding, history, evidence) for finding in sorted(findings, key=_urgency)),
        chart=draw_timeline(timeline, broken_at),
        tasks=_tasks(evidence, len(wanted)),
        faults=_faults(timeline),
    )
    path.write_text(page, encoding="utf-8", errors="replace")


def _summary(findings: Sequence[Finding]) -> str:
    counts = {validity: sum(finding.validity is validity for finding in findings) for validity in Validity}
    told = [f"{counts[Validity.VALID]} of {len(findings)} promises held"]
    told += [f"{counts[Validity.INVALID]} broken"] if counts[Validity.INVALID] else []
    told += [f"{counts[Validity.UNKNOWN]} undecided"] if counts[Validity.UNKNOWN] else []
    return ", ".join(told)


def _fact(name: str, text: str) -> str:
    return f"<div{' class=long' if len(text) > _LONG else ''}><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"


# ---------------------------------------------------------------- promises


def _urgency(finding: Finding) -> int:
    """Broken promises stand first."""
    return (Validity.INVALID, Validity.UNKNOWN, Validity.VALID).index(finding.validity)


def _promise(finding: Finding, history: History, evidence: Mapping[str, object]) -> str:
    word = _WORDS[finding.validity]
    parts = [
        f'<li class="promise {word}"><h3><span class="mark">{word}</span> {escape(finding.checker)}</h3>',
        f"<p>{escape(finding.promise)}</p>",
    ]
    if finding.reason is not None:
        parts.append(f'<p class="reason">Undecided: {escape(finding.reason)}.</p>')
    if finding.figures:
        parts.append(f'<p class="figures">{escape(figures_of(finding))}</p>')
    if finding.violations:
        items = "".join(_violation(each, history, evidence) for each in finding.violations[:_VIOLATIONS])
        left = int(finding.figures.get("violations", len(finding.violations))) - _VIOLATIONS
        more = f"<li>and {left:,} times more</li>" if left > 0 else ""
        parts.append(f'<ul class="violations">{items}{more}</ul>')
    return "".join((*parts, "</li>"))


def _violation(violation: Violation, history: History, evidence: Mapping[str, object]) -> str:
    at = "" if violation.at is None else f'<span class="at">{seconds_into(history, violation.at):.3f} s</span> '
    task = ""
    if violation.task_id is not None:
        named = escape(violation.task_id)
        task = f'<a href="#task-{named}">{named}</a> ' if violation.task_id in evidence else f"<code>{named}</code> "
    return f"<li>{at}{task}{escape(violation.text)}</li>"


# ---------------------------------------------------------------- evidence


def _tasks(evidence: Mapping[str, Sequence[Row]], count: int) -> str:
    if not evidence:
        return ""
    left = count - len(evidence)
    more = f"<p>{left:,} more are told in the JSON document's findings only.</p>" if left > 0 else ""
    tables = "".join(_task(task_id, rows, is_open=number == 0) for number, (task_id, rows) in enumerate(evidence.items()))
    return f"<section><h2>What happened to the tasks</h2>{tables}{more}</section>"


def _task(task_id: str, rows: Sequence[Row], is_open: bool) -> str:
    head = _head("s", "who", "what", "attempt", "delivery", "detail")
    left = len(rows) - _ROWS
    more = f"<p>{left:,} operations more are left out.</p>" if left > 0 else ""
    named = escape(task_id)
    return (
        f'<details id="task-{named}"{" open" if is_open else ""}><summary><code>{named}</code> '
        f"<span>{len(rows)} operations</span></summary>"
        f'<div class="wide"><table>{head}<tbody>{"".join(map(_row, rows[:_ROWS]))}</tbody></table></div>{more}</details>'
    )


def _row(row: Row) -> str:
    counters = "".join(f'<td class="number">{"" if value is None else value}</td>' for value in (row.attempt, row.delivery))
    return (
        f'<tr{" class=hit" if row.is_fault else ""}><td class="number">{row.seconds:.3f}</td><td>{escape(row.process)}</td>'
        f"<td>{escape(row.what)}</td>{counters}<td>{escape(row.detail)}</td></tr>"
    )


def _faults(timeline: Timeline) -> str:
    if not timeline.bands:
        return ""
    rows = "".join(map(_band, timeline.bands[:_BANDS]))
    head = _head("s", "fault", "target", "lasted")
    return (
        f"<section><details><summary><h2>Faults</h2> <span>{len(timeline.bands):,}</span></summary>"
        f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div></details></section>'
    )


def _band(band: Band) -> str:
    return (
        f'<tr><td class="number">{band.begin:.3f}</td><td>{escape(band.name)}</td><td>{escape(band.target)}</td>'
        f'<td class="number">{band.end - band.begin:.3f}</td></tr>'
    )


def _head(*columns: str) -> str:
    return f"<thead><tr>{_cells(columns)}</tr></thead>"


def _cells(columns: Iterable[str]) -> str:
    return "".join(f"<th>{escape(column)}</th>" for column in columns)
