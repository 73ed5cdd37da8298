"""The generator: merges the operations of several workloads into one sequence by time, the same for the same seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stem_chaos.workload.workload import Enqueue, Workload

__all__ = ["Planned", "generate"]


@dataclass(frozen=True, slots=True)
class Planned:
    """An operation and the workload that it belongs to."""

    workload: str
    operation: Enqueue

    @property
    def at(self) -> float:
        return self.operation.at


def generate(workloads: Sequence[Workload], seed: int, duration: float) -> Iterator[Planned]:
    """All operations of so many seconds, by time. Each workload has its own chance, so that adding one changes no other."""
    return heapq.merge(*(_planned(workload, seed, duration) for workload in workloads), key=lambda planned: planned.at)


def _planned(workload: Workload, seed: int, duration: float) -> Iterator[Planned]:
    chance = random.Random(f"{seed}/{workload.name}")
    return (Planned(workload.name, operation) for operation in workload.operations(chance, duration))
