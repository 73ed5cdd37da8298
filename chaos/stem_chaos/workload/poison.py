"""Poison pills: tasks that kill their executor each time, in one of the ways in which a task can."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Poison", "die"]


@app.task
def die(way: str) -> None:
    """End this process: by `exit`, or by the signal named."""
    if way == "exit":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, way))


@dataclass(frozen=True)
class Poison(Plain):
    name: ClassVar[str] = "poison"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, die.name, [chance.choice(("SIGKILL", "SIGSEGV", "exit"))], expects="poison")
