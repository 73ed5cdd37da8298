"""Delays: nothing is handed out before it is due.

A delay begins when the broker stores the task, which it did after it was asked to; and a hand-out happened before it was
written down. So what is written down earlier than the delay after the asking came too early. Delays are exact to a tenth of a
second. Where a clock was set, nothing is certain.
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import Life, read_lives
from stem_chaos.history import History

__all__ = ["PROMISE", "check_delays"]

PROMISE = "No task was handed out before it was due."
_PRECISION = 0.1


def check_delays(history: History) -> Finding:
    lives = read_lives(history)
    clocks = read_faults(history, lambda window: "clock" in window.name)
    figures = {"delayed": 0, "retries_delayed": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            for asked, delay, came, what in _waits(life):
                figures["delayed" if what == "its enqueue" else "retries_delayed"] += 1
                early = asked + delay - came
                if early > _PRECISION and not _is_uncertain(clocks, asked, came):
                    text = f"was handed out {early:.3f} s before the {delay:g} s after {what} were over"
                    yield Violation(text, life.task_id, came)

    return conclude("delays", PROMISE, list(violations()), figures)


def _waits(life: Life) -> Iterator[tuple[float, float, float, str]]:
    """When a delay was asked for, how long it is, when the task came all the same, and what asked."""
    asked = [call for call in life.enqueues if call.is_ok]
    came = min([each.at for each in life.deliveries] + [run.began for run in life.runs], default=None)
    if len(asked) == len(life.enqueues) == 1 and came is not None and float(asked[0].get("delay") or 0.0) > 0:
        yield asked[0].began, float(asked[0].get("delay")), came, "its enqueue"
    by_count = {each.delivery_count: each for each in life.deliveries}
    for call in life.settlements:
        count, delay = life.count_of(call.invoked), float(call.get("delay") or 0.0)
        if call.is_ok and call.verdict in ("retry", "defer") and delay > 0 and count is not None and count + 1 in by_count:
            yield call.began, delay, by_count[count + 1].at, f"a {call.verdict}"


def _is_uncertain(clocks: Faults, asked: float, came: float) -> bool:
    return clocks.any(asked, came)
