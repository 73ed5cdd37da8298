"""The faults of a history, and what they explain: whose work each may have ended or stopped, and when.

A fault lasts from before it was injected until after it was undone, as the nemesis wrote both down, so it covers every moment at
which it was in effect. One whose end is missing lasts until the history ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

from stem_chaos.history import History, Operation, Phase, Verb

__all__ = ["Calm", "Faults", "Window", "read_faults"]


@dataclass(frozen=True, slots=True)
class Window:
    """One fault, from `begin` to `end` (monotonic seconds), and what it hit.

    `everything`  the broker or the network: every holder
    `forgets`     the server may have lost what it had acknowledged, as an old primary does with what it had not replicated
    """

    name: str
    target: str
    begin: float
    end: float
    pids: frozenset[int] = frozenset()
    incarnations: frozenset[str] = frozenset()
    everything: bool = False
    forgets: bool = False


@dataclass(slots=True)
class _Overlaps:
    """Windows by begin, so that one which overlaps an interval is found without looking at them all."""

    begins: list[float] = field(default_factory=list)
    latest_ends: list[float] = field(default_factory=list)

    def add(self, window: Window) -> None:
        """In the order of their begins."""
        self.begins.append(window.begin)
        self.latest_ends.append(max(window.end, self.latest_ends[-1] if self.latest_ends else window.end))

    def any(self, since: float, until: float) -> bool:
        position = bisect_right(self.begins, until)
        return position > 0 and self.latest_ends[position - 1] >= since


class Faults:
    """All faults of a history, by begin."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self.windows: Sequence[Window] = sorted(windows, key=lambda window: window.begin)
        self._everything = _Overlaps()
        self._all = _Overlaps()
        self._by_holder: dict[int | str, _Overlaps] = {}
        for window in self.windows:
            self._all.add(window)
            if window.everything:
                self._everything.add(window)
            holders: list[int | str] = [*window.pids, *window.incarnations]
            for holder in holders:
                self._by_holder.setdefault(holder, _Overlaps()).add(window)
        self._forgetful = [window for window in self.windows if window.forgets]

    def hit(self, holders: Collection[int | str], since: float, until: float) -> bool:
        """Whether a fault that hit one of these, by process id or incarnation, or everything, was on in that time."""
        return self._everything.any(since, until) or any(
            holder in self._by_holder and self._by_holder[holder].any(since, until) for holder in holders
        )

    def any(self, since: float, until: float) -> bool:
        """Whether any fault was on in that time."""
        return self._all.any(since, until)

    def forgets_from(self, since: float) -> float:
        """From when on nothing is certain of a task that there is `since` then: the server may have forgotten where it was."""
        return next((window.begin for window in self._forgetful if window.end >= since), float("inf"))


class Calm:
    """Counts time in which no fault was on, nor its after-effects of `recovery` seconds."""

    def __init__(self, windows: Iterable[Window], recovery: float) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        for window in sorted(windows, key=lambda window: window.begin):
            end = window.end + recovery
            if self._ends and window.begin <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._begins.append(window.begin)
                self._ends.append(end)
        lengths = (end - begin for begin, end in zip(self._begins, self._ends, strict=True))
        self._troubled_before = [0.0, *accumulate(lengths)]

    def between(self, since: float, until: float) -> float:
        """Calm seconds from `since` to `until`."""
        return max(0.0, until - since - (self._troubled(until) - self._troubled(since)))

    def after(self, since: float, seconds: float) -> float:
        """The moment by which so many calm seconds have passed since `since`."""
        at = since
        for position in range(bisect_right(self._ends, since), len(self._begins)):
            calm = max(0.0, self._begins[position] - at)
            if calm >= seconds:
                break
            seconds -= calm
            at = max(at, self._ends[position])
        return at + seconds

    def _troubled(self, at: float) -> float:
        position = bisect_right(self._begins, at)
        if position == 0:
            return 0.0
        return self._troubled_before[position - 1] + min(at, self._ends[position - 1]) - self._begins[position - 1]


def read_faults(history: History, is_wanted: Callable[[Window], bool] | None = None) -> Faults:
    """The faults that took effect. What was tried and could not be done is none."""
    faults = _all_faults(history)
    return faults if is_wanted is None else Faults(filter(is_wanted, faults.windows))


@lru_cache(maxsize=1)  # each checker asks for them
def _all_faults(history: History) -> Faults:
    begun: dict[tuple[str, int, int], Operation] = {}
    windows: list[Window] = []
    for operation in history.of(Verb.FAULT):
        key = operation.process, operation.pid, operation.call
        if operation.phase is Phase.INVOKE:
            begun[key] = operation
        elif (begin := begun.pop(key, None)) is not None and operation.phase is not Phase.FAIL:
            windows.append(_window([begin, operation], operation.at))
    windows += [_window([begin], float("inf")) for begin in begun.values()]
    return Faults(windows)


def _window(said: Sequence[Operation], end: float) -> Window:
    """What a fault hit is known in part when it begins, and in part when it is over."""

    def all_of(name: str) -> Iterable[Any]:
        return (each for operation in said for each in operation.detail.get(name) or ())

    def any_of(name: str) -> bool:
        return any(bool(operation.detail.get(name)) for operation in said)

    def last_of(name: str) -> str:
        return next((str(each.detail[name]) for each in reversed(said) if each.detail.get(name)), "")

    return Window(
        last_of("fault"),
        last_of("target"),
        said[0].at,
        end,
        frozenset(map(int, all_of("pids"))),
        frozenset(map(str, all_of("incarnations"))),
        any_of("everything"),
        any_of("forgets"),
    )
