"""Mixed priorities: bursts of all ten at once, so that there is something to be put in order."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue, arrivals

__all__ = ["Priorities", "take_turn"]

_TURN = 0.03


@app.task
def take_turn(number: int) -> int:
    """Have had one's turn. It takes a moment, or no other would have to wait for it."""
    time.sleep(_TURN)
    return number


@dataclass(frozen=True)
class Priorities(Plain):
    """`burst`: so many at a time; `rate` counts them all."""

    burst: int = 100

    name: ClassVar[str] = "priorities"

    def operations(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        for burst, at in enumerate(arrivals(chance, self.rate / self.burst, duration)):
            for each in range(self.burst):
                yield self.operation(at, burst * self.burst + each, chance)

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, take_turn.name, [number], options={"priority": chance.randint(0, 9)})
