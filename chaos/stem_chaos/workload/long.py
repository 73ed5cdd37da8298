"""Long tasks: each outlives its lease, so that only renewal keeps it where it is."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Long", "work"]


@app.task
def work(seconds: float) -> float:
    """Take so long."""
    time.sleep(seconds)
    return seconds


@dataclass(frozen=True)
class Long(Plain):
    """`lasts`: seconds on average, varied by half."""

    lasts: float = 5.0

    name: ClassVar[str] = "long"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, work.name, [round(self.lasts * chance.uniform(0.5, 1.5), 3)])
