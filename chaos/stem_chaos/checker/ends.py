"""Ends: each task ended as its own code makes it end, whatever became of the processes that it ran in.

A workload says so with `expects`: a final state, or the reason of a dead letter. A task that was charged with too many deaths,
since faults kept killing its executor, may end as poison instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.counters import deaths_of
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import FINAL_STATES, Life, read_lives
from stem_chaos.history import History, Operation

__all__ = ["PROMISE", "check_ends"]

PROMISE = "Every task ended as its workload says that it has to."


def check_ends(history: History) -> Finding:
    lives = read_lives(history)
    figures = {"judged": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            expected, last = life.enqueued("expects"), life.observations[-1] if life.observations else None
            if expected is None or last is None or last.detail.get("state") not in FINAL_STATES:
                continue
            figures["judged"] += 1
            if not _is_as_expected(str(expected), last) and not _was_killed_too_often(history, life, last):
                yield Violation(f"had to end as {expected}, and ended as {_told(last)}", life.task_id, last.at)

    return conclude("ends", PROMISE, list(violations()), figures)


def _is_as_expected(expected: str, last: Operation) -> bool:
    if expected in FINAL_STATES:
        return bool(last.detail.get("state") == expected)
    return last.detail.get("state") == "failed" and _reason(last) in (None, expected)


def _was_killed_too_often(history: History, life: Life, last: Operation) -> bool:
    most = max(map(deaths_of, life.deliveries), default=0)
    return _reason(last) == "poison" and most + 1 >= history.facts.max_deliveries


def _reason(last: Operation) -> str | None:
    return last.detail.get("dead_letter") or last.detail.get("reason")


def _told(last: Operation) -> str:
    why = _reason(last) or last.detail.get("error")
    return str(last.detail.get("state")) if why is None else f"{last.detail.get('state')} ({why})"
