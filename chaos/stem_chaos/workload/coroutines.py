"""Async tasks: many at once on one event loop, so that an executor's death leaves many who may be guilty of it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Coroutines", "linger"]


@app.task
async def linger(seconds: float) -> float:
    """Take so long, and let others go on meanwhile."""
    await asyncio.sleep(seconds)
    return seconds


@dataclass(frozen=True)
class Coroutines(Plain):
    """`longest`: seconds that one takes at most."""

    longest: float = 1.5

    name: ClassVar[str] = "async"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, linger.name, [round(chance.uniform(0.0, self.longest), 3)])
