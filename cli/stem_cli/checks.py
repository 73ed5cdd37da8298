"""What `stem worker diagnose` and `stem doctor` found out: one `Check` for each question, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stem_cli.output import Output

__all__ = ["Check", "Level", "document", "failed", "fine", "print_checks", "warned"]


class Level(StrEnum):
    """How bad it is. A warning leaves the exit code alone."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    """`check` names the question, `remedy` says in one line what to do, `facts` are for JSON."""

    check: str
    level: Level
    message: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.level is Level.INFO


def fine(check: str, message: str, **facts: object) -> Check:
    return Check(check, Level.INFO, message, facts=facts)


def warned(check: str, message: str, remedy: str, **facts: object) -> Check:
    return Check(check, Level.WARNING, message, remedy, facts)


def failed(check: str, message: str, remedy: str, **facts: object) -> Check:
    return Check(check, Level.ERROR, message, remedy, facts)


def document(checks: Sequence[Check]) -> dict[str, Any]:
    """As JSON shows them."""
    return {
        "status": "error" if any(check.level is Level.ERROR for check in checks) else "ok",
        "checks": [
            {
                "check": check.check,
                "ok": check.is_ok,
                "level": str(check.level),
                "message": check.message,
                **({"remedy": check.remedy} if check.remedy else {}),
                **({"facts": dict(check.facts)} if check.facts else {}),
            }
            for check in checks
        ],
    }


_TAGS = {Level.INFO: ("[OK ]", "green"), Level.WARNING: ("[WARN]", "yellow"), Level.ERROR: ("[ERR]", "bold red")}


def print_checks(checks: Sequence[Check], output: Output) -> None:
    """As JSON, or a line for each with the remedy below it."""
    if output.as_json:
        output.document(document(checks))
        return
    for check in checks:
        output.styled(_TAGS[check.level], (f" {check.check}: {check.message}", ""))
        if check.remedy:
            output.line(f"       {check.remedy}")
