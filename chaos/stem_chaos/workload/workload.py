"""`Workload`: operations, and what must be true of them afterwards. `Enqueue`: one of its operations, as it is planned."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stem_chaos.checker.finding import Checker

__all__ = ["Enqueue", "Workload", "arrivals"]


@dataclass(frozen=True, slots=True)
class Enqueue:
    """One task to be enqueued.

    `at`       seconds from the beginning of the load
    `options`  those of `Stem.enqueue_by_name`: queue, priority, countdown, max_retries, expires, task_id, …
    `expects`  how it has to end: a final state, or the reason of a dead letter; None: any end will do
    `insists`  ask again, with the same id, until it is known whether the task is stored; needs a `task_id`
    """

    at: float
    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    expects: str | None = "succeeded"
    insists: bool = False


class Workload(Protocol):
    """`app` names the application that has its tasks, MODULE:ATTRIBUTE."""

    @property
    def name(self) -> str: ...

    @property
    def app(self) -> str: ...

    def prepare(self, directory: Path) -> None:
        """Make what its tasks need in the run's directory, before anything runs."""
        ...

    def operations(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        """What to enqueue in so many seconds, by time. The same chance gives the same operations."""
        ...

    def observe(self, directory: Path) -> Mapping[str, Any]:
        """What its tasks left behind beside their records, for its checkers; nothing unless it has some."""
        ...

    def checkers(self) -> Sequence[Checker]:
        """Its own ones, beside those that hold for every history."""
        ...


def arrivals(chance: random.Random, rate: float, duration: float) -> Iterator[float]:
    """Moments at which something happens `rate` times a second on average, without a rhythm that faults could fall in with."""
    at = chance.expovariate(rate)
    while at < duration:
        yield at
        at += chance.expovariate(rate)
