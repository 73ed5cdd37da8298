"""Polite leaving: a node that is told to leave does so by itself, and says that all is well. Promise P10.

Judged are the nodes' exit codes at the end of the run, and those of nodes that were replaced while it went on (`replace`), unless
a fault hit their processes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.faults import Window, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.history import History, Phase, Verb

__all__ = ["PROMISE", "REPLACE", "check_leaving"]

PROMISE = "Every node that was told to leave left by itself, with exit code 0."
REPLACE = "replace"


def check_leaving(history: History) -> Finding:
    facts, faults = history.facts, read_faults(history, lambda window: window.name != REPLACE)
    figures = {"at_the_end": len(facts.exits), "replaced": 0}

    def violations() -> Iterator[Violation]:
        for code in facts.exits:
            if code != 0:
                yield Violation(f"a node ended with {code} when it was told to leave in the end", at=facts.ended_at)
        begun = {each.call: each.at for each in history.of(Verb.FAULT, phase=Phase.INVOKE) if each.detail.get("fault") == REPLACE}
        for each in history.of(Verb.FAULT, phase=Phase.OK):
            if each.detail.get("fault") == REPLACE and each.call in begun:
                figures["replaced"] += 1
                exit_code = each.detail.get("exit")
                if exit_code != 0 and not any(_may_have_hit(window, begun[each.call], each.at) for window in faults.windows):
                    yield Violation(f"{each.detail.get('target')} ended with {exit_code} when it was to be replaced", at=each.at)

    found = list(violations())
    return conclude("leaving", PROMISE, found, figures, None if facts.exits else "the run ended before its nodes were to leave")


def _may_have_hit(window: Window, since: float, until: float) -> bool:
    """Whether a fault that harms processes was on meanwhile. Which node's they were is not asked: few faults, short leave."""
    return bool(window.pids) and window.begin <= until and window.end >= since
