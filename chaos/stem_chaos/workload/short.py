"""Many short tasks: what streams through prefetch, batches and several tasks in one frame."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Short", "double"]


@app.task
def double(number: int) -> int:
    """Do next to nothing."""
    return 2 * number


@dataclass(frozen=True)
class Short(Plain):
    name: ClassVar[str] = "short"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, double.name, [number])
