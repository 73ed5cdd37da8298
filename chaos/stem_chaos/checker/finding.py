"""`Finding`: what a checker says of a history, and the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from stem_chaos.history import History

__all__ = ["KEPT", "Checker", "Finding", "Validity", "Violation", "conclude"]

KEPT = 200
"""Violations that a finding lists; a broken promise is broken often, and all of them are counted."""


class Validity(StrEnum):
    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a promise was broken. `task_id`: whose history shows it, if one task's does; `at`: monotonic seconds."""

    text: str
    task_id: str | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`checker` is the checker's name, `promise` the sentence that was checked, `figures` what was counted on the way.

    `unknown` needs a reason: what the history lacks to decide it.
    """

    checker: str
    promise: str
    validity: Validity
    violations: Sequence[Violation] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


Checker: TypeAlias = Callable[[History], Finding]


def conclude(
    checker: str, promise: str, violations: Iterable[Violation], figures: Mapping[str, Any], reason: str | None = None
) -> Finding:
    """What follows from a look at the whole history. `reason`: what it lacks, which counts only where nothing was found broken.

    The figures are read when all violations have been.
    """
    found = sorted(violations, key=lambda violation: (violation.at is None, violation.at))
    figures = dict(figures)
    if not found:
        return Finding(checker, promise, Validity.VALID if reason is None else Validity.UNKNOWN, (), figures, reason)
    return Finding(checker, promise, Validity.INVALID, found[:KEPT], {**figures, "violations": len(found)})
