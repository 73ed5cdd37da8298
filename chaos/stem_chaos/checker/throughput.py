"""Throughput comes back: within 10 s of the last fault's end, as many tasks end in a second as before the first, but for a
tenth.

Before: the median over the seconds between the first end and the first fault. After: the best two seconds, since a small
machine is never quite even. Slow is not broken where there was nothing to do: only where tasks waited all the while, and no
more runs were under way than before, has throughput not come back.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import Life, read_lives
from stem_chaos.history import History, Verb

__all__ = ["PROMISE", "check_throughput"]

PROMISE = "Within 10 s after the last fault, throughput was back to 90 % of what it had been before the first."
_PATIENCE = 10.0
_SHARE = 0.9
_LEAST_SECONDS = 3
_LEAST_ENDS = 20
_SPAN = 2.0
_STEP = 0.5


def check_throughput(history: History) -> Finding:
    faults = read_faults(history)
    ends = sorted(each.at for each in history.of(Verb.END))
    if not faults.windows:
        return conclude("throughput", PROMISE, [], {"ends": len(ends)})
    before = _before(faults, ends)
    quiet_from = history.facts.quiet_from or max(window.end for window in faults.windows)
    if before is None:
        return conclude("throughput", PROMISE, [], {}, "before the first fault there was too little to compare with")
    if math.isinf(quiet_from):
        return conclude("throughput", PROMISE, [], {"before_per_second": round(before, 1)}, "the last fault did not end")
    moments = [quiet_from + step * _STEP for step in range(int(_PATIENCE / _STEP) + 1)]
    rates = [_rate(ends, at, at + _SPAN) for at in moments]
    best = max(rates)
    figures: dict[str, object] = {"before_per_second": round(before, 1), "after_per_second": round(best, 1)}
    if best >= before * _SHARE:
        back_at = next(at for at, rate in zip(moments, rates, strict=True) if rate >= before * _SHARE)
        return conclude("throughput", PROMISE, [], {**figures, "back_after_seconds": round(back_at + _SPAN - quiet_from, 1)})
    if not ends or (ends[-1] < moments[-1] and _waiting(read_lives(history), ends[-1]) == 0):
        return conclude("throughput", PROMISE, [], figures, "the run ended, or its tasks did, before the ten seconds were over")
    waiting = min(_waiting(read_lives(history), at) for at in moments)
    slots = max(1, history.facts.nodes * history.facts.workers * history.facts.concurrency)
    if waiting <= 2 * slots:
        return conclude("throughput", PROMISE, [], figures, "there was not work enough after the last fault")
    if _runs_under_way(read_lives(history), moments) >= slots * _SHARE:
        return conclude("throughput", PROMISE, [], figures, "every slot was busy, with longer tasks than before")
    text = f"{best:.1f} tasks ended in a second, {before:.1f} had before the first fault; {waiting} tasks waited all the while"
    return conclude("throughput", PROMISE, [Violation(text, at=moments[-1])], figures)


def _before(faults: Faults, ends: Sequence[float]) -> float | None:
    """Ends in a second, as they were."""
    until = faults.windows[0].begin
    if not ends or until - ends[0] < _LEAST_SECONDS:
        return None
    seconds = [_rate(ends, ends[0] + at, ends[0] + at + 1) for at in range(int(until - ends[0]))]
    return statistics.median(seconds) if sum(seconds) >= _LEAST_ENDS else None


def _rate(ends: Sequence[float], since: float, until: float) -> float:
    return (bisect_right(ends, until) - bisect_left(ends, since)) / (until - since)


def _waiting(lives: Mapping[str, Life], at: float) -> int:
    """Tasks that were accepted and due, and had not been handed out even once."""
    return sum(
        any(call.is_ok and call.ended + float(call.get("delay") or 0.0) < at for call in life.enqueues)
        and (not life.deliveries or life.deliveries[0].at > at)
        for life in lives.values()
    )


def _runs_under_way(lives: Mapping[str, Life], moments: Sequence[float]) -> float:
    """How many there were on average. One that nobody saw leave is not among them."""
    total = sum(
        max(0.0, min(run.ended, moments[-1]) - max(run.began, moments[0]))
        for life in lives.values()
        for run in life.runs
        if run.end is not None
    )
    return total / (moments[-1] - moments[0])
