"""The timeline as SVG: a lane for each kind of fault, below it throughput and latency, all over the same seconds.

Colours are classes, so that the page decides on them; every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from stem_chaos.report.timeline import Timeline

__all__ = ["draw_timeline"]

_WIDTH = 960
_LEFT = 132
_RIGHT = 16
_LANE = 16
_PLOT = 150
_GAP = 34
_TICKS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
_FLOOR = 0.001  # seconds: what waits less is drawn as if it had waited so long


def draw_timeline(timeline: Timeline, broken_at: Sequence[float]) -> str:
    """One `<svg>`. `broken_at`: when promises were broken, seconds since the start of the run."""
    return _Chart(timeline, broken_at).draw()


class _Chart:
    def __init__(self, timeline: Timeline, broken_at: Sequence[float]) -> None:
        self._timeline = timeline
        self._broken_at = broken_at
        self._lanes = list(dict.fromkeys(band.name for band in timeline.bands))
        self._top = 8 + _LANE * len(self._lanes) + (22 if self._lanes else 14)
        self._second = self._top + _PLOT + _GAP
        self._bottom = self._second + _PLOT

    def draw(self) -> str:
        parts = [
            *self._seconds(),
            *self._bands(),
            *self._throughput(),
            *self._latency(),
            *self._breaches(),
        ]
        return (
            f'<svg viewBox="0 0 {_WIDTH} {self._bottom + 40}" role="img" aria-label="Faults, throughput and latency over time">'
            f"{''.join(parts)}</svg>"
        )

    def _x(self, seconds: float) -> float:
        share = min(1.0, max(0.0, seconds / self._timeline.duration))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    # ------------------------------------------------------------ what goes across

    def _seconds(self) -> Iterator[str]:
        step = next((tick for tick in _TICKS if self._timeline.duration / tick <= 12), _TICKS[-1])
        for number in range(int(self._timeline.duration / step) + 1):
            x = self._x(number * step)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self._top}" y2="{self._bottom}"/>'
            yield f'<text class="tick" x="{x:.1f}" y="{self._bottom + 16}" text-anchor="middle">{_seconds(number * step)}</text>'

    def _bands(self) -> Iterator[str]:
        for place, name in enumerate(self._lanes):
            y = 8 + place * _LANE
            yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
            yield f'<line class="lane" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y + 7}" y2="{y + 7}"/>'
        for band in self._timeline.bands:
            x, width = self._x(band.begin), max(2.0, self._x(band.end) - self._x(band.begin))
            y = 8 + self._lanes.index(band.name) * _LANE
            told = escape(f"{band.name}: {band.target}, {band.begin:.2f} s to {band.end:.2f} s")
            for top in (self._top, self._second):
                yield f'<rect class="shade" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_PLOT}"/>'
            yield f'<rect class="fault" x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{_LANE - 5}" rx="2">'
            yield f"<title>{told}</title></rect>"

    def _breaches(self) -> Iterator[str]:
        for x in sorted({round(self._x(at), 0) for at in self._broken_at}):
            yield f'<line class="breach" x1="{x:.0f}" x2="{x:.0f}" y1="{self._top}" y2="{self._bottom}"/>'

    # ------------------------------------------------------------ the two plots

    def _throughput(self) -> Iterator[str]:
        timeline = self._timeline
        most = _nice(max((*timeline.enqueued, *timeline.ended), default=1.0))
        yield from _legend(self._top, "tasks a second", (("ended", "ended"), ("enqueued", "enqueued")))
        for share in (0.0, 0.5, 1.0):
            yield from _level(self._top + _PLOT * (1 - share), f"{most * share:g}")
        for name, values in (("enqueued", timeline.enqueued), ("ended", timeline.ended)):
            points = [(self._middle(at), self._top + _PLOT * (1 - value / most)) for at, value in enumerate(values)]
            yield _line(name, points)

    def _latency(self) -> Iterator[str]:
        timeline = self._timeline
        known = [value for value in (*timeline.p50, *timeline.p99) if value is not None]
        lowest = math.floor(math.log10(max(_FLOOR, min(known, default=_FLOOR))))
        highest = max(lowest + 1, math.ceil(math.log10(max(_FLOOR, max(known, default=_FLOOR)))))
        yield from _legend(self._second, "seconds until a task starts", (("p50", "median"), ("p99", "99 of 100")))
        for power in range(lowest, highest + 1):
            share = (power - lowest) / (highest - lowest)
            yield from _level(self._second + _PLOT * (1 - share), f"{10.0**power:g}")
        for name, values in (("p50", timeline.p50), ("p99", timeline.p99)):
            for run in _runs(values):
                points = [
                    (
                        self._middle(at),
                        self._second + _PLOT * (1 - (math.log10(max(value, _FLOOR)) - lowest) / (highest - lowest)),
                    )
                    for at, value in run
                ]
                yield _line(name, points)

    def _middle(self, at: int) -> float:
        return self._x((at + 0.5) * self._timeline.step)


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """The stretches in which there is a value."""
    run: list[tuple[int, float]] = []
    for at, value in enumerate(values):
        if value is not None:
            run.append((at, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(name: str, points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        (x, y), *_ = points
        return f'<circle class="{name} dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    return f'<polyline class="{name} line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _level(y: float, text: str) -> Iterator[str]:
    yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'


def _legend(top: float, title: str, lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    y = top - 7
    yield f'<text class="title" x="{_LEFT}" y="{y}">{title}</text>'
    x = _LEFT + 200
    for name, text in lines:
        yield f'<line class="{name} line" x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}"/>'
        yield f'<text class="tick" x="{x + 23}" y="{y}">{text}</text>'
        x += 100


def _nice(most: float) -> float:
    """The next round number."""
    if most <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(most))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= most)


def _seconds(number: float) -> str:
    return f"{number:g} s" if number < 120 else f"{number / 60:g} min"
