"""Delayed tasks: none may start early, and none may be forgotten where it waits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.short import double
from stem_chaos.workload.workload import Enqueue

__all__ = ["Delayed"]


@dataclass(frozen=True)
class Delayed(Plain):
    """`longest`: seconds that one waits at most."""

    longest: float = 6.0

    name: ClassVar[str] = "delayed"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, double.name, [number], options={"countdown": round(chance.uniform(0.5, self.longest), 3)})
