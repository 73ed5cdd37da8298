"""Rates: what has a rate limit starts no oftener than it allows, in any stretch of time.

A run was allowed after its hand-out and before it began. So of the runs whose hand-out and begin both lie in a stretch, no more
can be right than its length allows, and one burst. Nothing is certain where a clock was set or where the server may have
forgotten: there the count begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stem_actors.model.rate import parse_rate
from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Checker, Finding, Violation, conclude
from stem_chaos.checker.lives import Life, read_lives
from stem_chaos.history import History

__all__ = ["PROMISE", "rate_checker"]

PROMISE = "No task with a rate limit started oftener than that allows."
_PRECISION = 0.1  # seconds


def rate_checker(task: str, rate: str) -> Checker:
    """For all runs of one task, by its name."""
    number, interval = parse_rate(rate)

    def check_rates(history: History) -> Finding:
        lives = [life for life in read_lives(history).values() if life.enqueued("task") == task]
        uncertain = read_faults(history, lambda window: "clock" in window.name or window.everything)
        runs = sorted((handed, began, life.task_id) for life in lives for handed, began in _runs(life))
        figures = {"runs": len(runs), "tasks": len(lives)}

        def violations() -> Iterator[Violation]:
            for stretch in _certain(runs, uncertain):
                worst = _worst(stretch, number, interval)
                if worst is not None:
                    count, length, task_id, at = worst
                    yield Violation(f"was the last of {count} to start within {length:.3f} s, at {rate}", task_id, at)

        return conclude("rates", PROMISE, list(violations()), figures)

    return check_rates


def _runs(life: Life) -> Iterator[tuple[float, float]]:
    """When each run's hand-out came and when it began. One that begins again, as after a death, is another hand-out's."""
    for run in life.runs:
        handed = max((each.at for each in life.deliveries if each.at <= run.began), default=None)
        if handed is not None:
            yield handed, run.began


def _certain(runs: Sequence[tuple[float, float, str]], uncertain: Faults) -> Iterator[Sequence[tuple[float, float, str]]]:
    """The runs between what makes a count uncertain."""
    stretch: list[tuple[float, float, str]] = []
    for run in runs:
        if stretch and uncertain.any(stretch[-1][0], run[1]):
            yield stretch
            stretch = []
        stretch.append(run)
    yield stretch


def _worst(runs: Sequence[tuple[float, float, str]], number: int, interval: float) -> tuple[int, float, str, float] | None:
    """Too many runs in one stretch: how many, its length, the last of them and when that began."""
    for first, (since, _, _) in enumerate(runs):
        inside = sorted((began, task_id) for _, began, task_id in runs[first:])
        for count, (began, task_id) in enumerate(inside, 1):
            if count > number + (began - since + _PRECISION) * number / interval:
                return count, began - since, task_id, began
    return None
