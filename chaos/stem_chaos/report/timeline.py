"""A run over time: how many tasks ended in a second, how long they waited, and when which fault was on. Figures only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stem_chaos.checker.faults import read_faults
from stem_chaos.checker.lives import Life, read_lives
from stem_chaos.history import History, Verb
from stem_chaos.report.facts import duration_of, seconds_into

__all__ = ["Band", "Timeline", "read_timeline"]

_MOST_POINTS = 240
_WIDTHS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Band:
    """A fault that was on from `begin` to `end`, seconds since the start of the run."""

    name: str
    target: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Points lie `step` seconds apart, the first one's time is 0 to `step`.

    `enqueued`, `ended`  tasks accepted, and runs that ended, in a second
    `p50`, `p99`         seconds from when a task could run to its first start, of those that started then; None: none did
    """

    duration: float
    step: float
    enqueued: Sequence[float]
    ended: Sequence[float]
    p50: Sequence[float | None]
    p99: Sequence[float | None]
    bands: Sequence[Band]


def read_timeline(history: History) -> Timeline:
    duration = max(1.0, duration_of(history))
    step = next((width for width in _WIDTHS if duration / width <= _MOST_POINTS), duration / _MOST_POINTS)
    count = int(duration / step) + 1

    def place(at: float) -> int:
        return min(count - 1, max(0, int(seconds_into(history, at) / step)))

    enqueued, ended = [0.0] * count, [0.0] * count
    waits: Mapping[int, list[float]] = defaultdict(list)
    for life in read_lives(history).values():
        accepted = next((call for call in life.enqueues if call.is_ok), None)
        if accepted is not None:
            enqueued[place(accepted.ended)] += 1 / step
        if life.runs and (waited := _waited(life)) is not None:
            waits[place(life.runs[0].began)].append(waited)
    for operation in history.of(Verb.END):
        ended[place(operation.at)] += 1 / step
    for some in waits.values():
        some.sort()
    bands = [
        Band(window.name, window.target, seconds_into(history, window.begin), min(duration, seconds_into(history, window.end)))
        for window in read_faults(history).windows
    ]
    return Timeline(
        duration,
        step,
        enqueued,
        ended,
        [_share(waits.get(at), 0.5) for at in range(count)],
        [_share(waits.get(at), 0.99) for at in range(count)],
        bands,
    )


def _waited(life: Life) -> float | None:
    asked = next(iter(life.enqueues), None)
    return None if asked is None else max(0.0, life.runs[0].began - asked.began - float(asked.get("delay") or 0.0))


def _share(waits: Sequence[float] | None, share: float) -> float | None:
    return None if not waits else waits[min(len(waits) - 1, int(len(waits) * share))]
