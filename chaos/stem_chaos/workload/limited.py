"""Tasks with a rate limit: none may start too early, and all have to start in the end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stem_chaos.checker.finding import Checker
from stem_chaos.checker.rates import rate_checker
from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Limited", "take_a_token"]

_RATE = "5/s"


@app.task(rate_limit=_RATE, rate_limit_failure_mode="fail_closed")
def take_a_token(number: int) -> int:
    """Count against the limit, also while the limiter is away: then it waits."""
    return number


@dataclass(frozen=True)
class Limited(Plain):
    """A `rate` below the limit leaves room for what piles up during a fault."""

    name: ClassVar[str] = "limited"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        return Enqueue(at, take_a_token.name, [number])

    def checkers(self) -> Sequence[Checker]:
        return (rate_checker(take_a_token.name, _RATE),)
