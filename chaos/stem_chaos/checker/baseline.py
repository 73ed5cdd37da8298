"""Back to baseline: when all is quiet again, nothing has grown. Promise P8.

The first count before the first fault is compared with the last one after the last fault. A little growth is no leak: an
interpreter that has run tasks holds on to some memory, a dead worker's last heartbeat is kept for a minute. What is kept on
purpose, records and dead letters, is not among the keys, and `broker_bytes`, which holds it, is only told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stem_chaos.checker.faults import read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.history import History, Operation, Verb
from stem_cli.output import readable_bytes

__all__ = ["ALLOWED", "PROMISE", "check_baseline"]

PROMISE = "After the faults the broker's keys and the processes' memory, descriptors and threads are what they were before."

ALLOWED: Mapping[str, tuple[float, float]] = {
    "keys": (1.1, 50),
    "memory_bytes": (1.5, 64 * 2**20),
    "descriptors": (1.2, 16),
    "threads": (1.2, 8),
    "processes": (1.2, 2),
}
"""How often what it was, and so many more, each may be in the end."""


def check_baseline(history: History) -> Finding:
    faults = read_faults(history)
    counted = [each for each in history.of(Verb.MEASURE) if not ALLOWED.keys().isdisjoint(each.detail)]
    quiet = [each for each in counted if not faults.any(each.at, each.at)]
    first_fault = faults.windows[0].begin if faults.windows else float("inf")
    last_fault = max((window.end for window in faults.windows), default=float("-inf"))
    before = next((each for each in quiet if each.at < first_fault), None)
    after = next((each for each in reversed(quiet) if each.at > last_fault and each is not before), None)
    if before is None or after is None:
        missing = "before the first fault" if before is None else "after the last one"
        return conclude("baseline", PROMISE, [], {}, f"nothing was counted {missing}")
    workers = len({each.incarnation for each in history.of(Verb.DELIVER)})
    names = [name for name in {**before.detail, **after.detail} if name in before.detail and name in after.detail]
    figures = {name: f"{_told(name, before)} → {_told(name, after)}" for name in names if _is_number(before, name)}
    return conclude("baseline", PROMISE, list(_grown(before, after, workers)), figures)


def _grown(before: Operation, after: Operation, workers: int) -> Iterator[Violation]:
    for name, (factor, more) in ALLOWED.items():
        if name in before.detail and name in after.detail:
            was, is_now = _amount(before, name), _amount(after, name)
            most = was * factor + more + (workers if name == "keys" else 0)
            if is_now > most:
                text = f"{name} was {_told(name, before)} and is {_told(name, after)}; at most {_text(name, most)} would do"
                yield Violation(text, at=after.at)


def _amount(measured: Operation, name: str) -> float:
    """A count, or those of several processes together."""
    counted: Any = measured.detail[name]
    return float(sum(counted.values()) if isinstance(counted, Mapping) else counted)


def _told(name: str, measured: Operation) -> str:
    return _text(name, _amount(measured, name))


def _text(name: str, amount: float) -> str:
    return str(readable_bytes(amount)) if name.endswith("_bytes") else f"{amount:.0f}"


def _is_number(measured: Operation, name: str) -> bool:
    return isinstance(measured.detail[name], int | float | Mapping)
