"""When a task runs again. `RetryPolicy` computes delays, `decide()` turns an outcome into a verdict; both are pure.

Chance enters as an argument (`chance`, 0 ≤ chance < 1), so a test can name the delay it expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from stem_actors.errors import TaskDefinitionError
from stem_actors.model.delivery import Delivery
from stem_actors.model.outcome import (
    Ack,
    DeadLetter,
    Defer,
    Died,
    Expired,
    Failed,
    Interrupted,
    Lapsed,
    Limited,
    Outcome,
    Recorded,
    Rejected,
    Release,
    Retry,
    RetryAsked,
    Revoked,
    Succeeded,
    Unregistered,
    Verdict,
)

__all__ = ["DEFAULT_BACKOFF", "Limits", "RetryPolicy", "decide"]

_ACK = Ack()
_LARGEST_EXPONENT = 62  # 2**62 s is past any cap; capping first keeps a large attempt from overflowing a float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before the next attempt, and which errors deserve one.

    `backoff`       double `default_delay` with every attempt, up to `backoff_max`
    `jitter`        subtract up to a quarter at random, so that failures which came together do not return together
    `max_retries`   None: the task's own number
    `auto_retry_for`, `dont_auto_retry_for`  exception classes, looked at with `isinstance` in the executor; empty means all
    """

    backoff: bool = False
    backoff_max: float | None = None
    jitter: bool = True
    default_delay: float = 0.0
    max_retries: int | None = None
    auto_retry_for: Sequence[type[BaseException]] = ()
    dont_auto_retry_for: Sequence[type[BaseException]] = ()

    def __post_init__(self) -> None:
        listings: tuple[Any, ...] = (*self.auto_retry_for, *self.dont_auto_retry_for)
        for listed in listings:
            if not (isinstance(listed, type) and issubclass(listed, BaseException)):
                raise TaskDefinitionError(f"a retry policy lists exception classes, and {listed!r} is none")

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (0-based)."""
        bound = self.default_delay
        if self.backoff:
            bound *= 2 ** min(attempt, _LARGEST_EXPONENT)
            if self.backoff_max is not None:
                bound = min(bound, self.backoff_max) if bound else self.backoff_max
        return bound - bound / 4 * chance if self.jitter else bound

    def allows(self, error: BaseException) -> bool:
        """Whether the type lists let `error` be retried."""
        if isinstance(error, tuple(self.dont_auto_retry_for)):
            return False
        return not self.auto_retry_for or isinstance(error, tuple(self.auto_retry_for))


DEFAULT_BACKOFF = RetryPolicy(backoff=True, default_delay=2.0, backoff_max=300.0)
"""For tasks without a policy: 2, 4, 8 … 300 s, less up to a quarter."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is tolerated of one task before it is set aside."""

    max_deaths: int = 5
    max_hand_backs: int = 10


def decide(delivery: Delivery, outcome: Outcome, policy: RetryPolicy, limits: Limits, chance: float) -> Verdict:
    """Turn what became of a run into what the broker is told. Pure."""
    match outcome:
        case Succeeded() | Revoked() | Expired():
            return _ACK
        case Recorded(reason):
            return _ACK if reason is None else DeadLetter(reason)
        case Interrupted() | Lapsed():
            return Release()
        case Died(cause):
            deaths = [*delivery.state.deaths, cause]
            if len(deaths) >= limits.max_deaths:
                return DeadLetter("poison", {"deaths": deaths})
            return Release() if len(deaths) == 1 else Defer(1.0)
        case Failed(error, retryable) if not retryable or delivery.retries_left == 0:
            return DeadLetter("max-retries-exhausted", {"error": f"{error.type}: {error.message}"})
        case RetryAsked(error) if delivery.retries_left == 0:
            return DeadLetter("max-retries-exhausted", {"error": f"{error.type}: {error.message}"})
        case RetryAsked(delay=float() | int() as delay):
            return Retry(max(0.0, delay))
        case Failed() | RetryAsked():
            return Retry(policy.delay(delivery.state.attempt - delivery.state.replayed_at_attempt, chance))
        case Unregistered():
            if delivery.state.hand_backs + 1 >= limits.max_hand_backs:
                return DeadLetter("unregistered-task", {"task": delivery.envelope.name})
            return Defer(min(30.0, 2.0 ** min(delivery.state.hand_backs, _LARGEST_EXPONENT)))
        case Limited(wait):
            return Defer(DEFAULT_BACKOFF.delay(0, chance) if wait is None else max(0.0, wait))
        case Rejected(reason, error):
            return DeadLetter(reason, {"error": f"{error.type}: {error.message}"})
        case _:
            assert_never(outcome)
