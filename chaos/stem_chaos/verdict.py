"""The verdict on a history: what every checker says, those of all histories and those of its workloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stem_chaos.checker.all import check_all
from stem_chaos.checker.finding import Checker, Finding, Validity
from stem_chaos.history import History
from stem_chaos.workload.all import WORKLOADS

__all__ = ["has_held", "judge"]


def judge(history: History) -> list[Finding]:
    """Ask every checker, one after the other. Pure."""
    return check_all(history, _of_workloads(history))


def has_held(findings: Iterable[Finding]) -> bool:
    """Whether no promise was broken. What the history does not decide is no breach; it is reported with its reason."""
    return all(finding.validity is not Validity.INVALID for finding in findings)


def _of_workloads(history: History) -> Sequence[Checker]:
    named = history.facts.workloads.items()
    return [checker for name, parameters in named if name in WORKLOADS for checker in WORKLOADS[name](**parameters).checkers()]
