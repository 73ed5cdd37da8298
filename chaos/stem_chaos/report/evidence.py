"""The evidence for a violation: all that happened to one task, and the faults that hit those who held it, by time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stem_chaos.checker.faults import Window, read_faults
from stem_chaos.checker.finding import Finding
from stem_chaos.history import History, Operation, Verb
from stem_chaos.report.facts import seconds_into

__all__ = ["Row", "evidence_of", "violated_tasks"]

_SHOWN_APART = frozenset({"workload", "verdict", "answer", "outcome", "state", "queue", "task", "worker", "visibility"})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a task's history. `seconds` since the start of the run; `is_fault`: it was done to its holder."""

    seconds: float
    process: str
    what: str
    attempt: int | None
    delivery: int | None
    detail: str
    is_fault: bool = False


def violated_tasks(findings: Iterable[Finding]) -> list[str]:
    """The tasks that violations name, each once, the first ones first."""
    return list(dict.fromkeys(each.task_id for finding in findings for each in finding.violations if each.task_id))


def evidence_of(history: History, task_ids: Sequence[str]) -> Mapping[str, list[Row]]:
    """Their histories, in one look at the whole."""
    wanted = set(task_ids)
    found: dict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.task_id in wanted:
            found[operation.task_id or ""].append(operation)
    windows = read_faults(history).windows
    return {task_id: _rows(history, found[task_id], windows) for task_id in task_ids if found[task_id]}


def _rows(history: History, operations: Sequence[Operation], windows: Sequence[Window]) -> list[Row]:
    holders = {operation.pid for operation in operations if operation.verb is not Verb.ENQUEUE}
    incarnations = {operation.incarnation for operation in operations if operation.incarnation}
    rows = [_row(history, operation) for operation in operations]
    since, until = operations[0].at, operations[-1].at
    for window in windows:
        is_near = window.begin <= until and window.end >= since
        if is_near and (window.everything or holders & window.pids or incarnations & window.incarnations):
            lasted = "to the end" if window.end == float("inf") else f"{window.end - window.begin:.3f} s"
            rows.append(
                Row(seconds_into(history, window.begin), "nemesis", window.name, None, None, f"{window.target}, {lasted}", True)
            )
    return sorted(rows, key=lambda row: row.seconds)


def _row(history: History, operation: Operation) -> Row:
    return Row(
        seconds_into(history, operation.at),
        operation.process,
        f"{operation.verb} {operation.phase}",
        operation.attempt,
        operation.delivery_count,
        _told(operation),
    )


def _told(operation: Operation) -> str:
    """What is particular to it, the most telling first."""
    detail = operation.detail
    first = [str(detail[name]) for name in ("verdict", "outcome", "state", "answer") if detail.get(name) is not None]
    others = [
        f"{name}={value}"
        for name, value in detail.items()
        if name not in _SHOWN_APART and value not in (None, [], {}, 0, 0.0, "")
    ]
    lease = [f"lease {operation.lease}"] if operation.lease is not None and operation.verb is Verb.DELIVER else []
    return ", ".join((*first, *lease, *others)).encode(errors="replace").decode()  # it may be half a character
