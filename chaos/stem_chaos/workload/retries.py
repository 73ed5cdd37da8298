"""Retries: tasks that fail a few times and then succeed, and some that fail once too often and are set aside."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from stem_actors import RetryPolicy, current_task
from stem_chaos.workload.plain import Plain
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Enqueue

__all__ = ["Retries", "fail"]

_ALLOWED = 3


@app.task(retry_policy=RetryPolicy(default_delay=0.3))
def fail(times: int) -> int:
    """Fail in so many attempts, and succeed in the next; the number of attempts that it took.

    An attempt that is repeated since its executor died is the same attempt, so deaths change nothing of this.
    """
    attempt = current_task().attempt
    if attempt < times:
        raise RuntimeError(f"attempt {attempt} of {times} that fail")
    return attempt + 1


@dataclass(frozen=True)
class Retries(Plain):
    name: ClassVar[str] = "retries"

    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        times = chance.choice((1, 1, 2, 3, _ALLOWED + 1))
        expects = "succeeded" if times <= _ALLOWED else "max-retries-exhausted"
        return Enqueue(at, fail.name, [times], options={"max_retries": _ALLOWED}, expects=expects)
