"""`Outcome`: what became of one run of a task. `Verdict`: what the broker is told. `retry.decide()` makes one of the other.

All are values; an outcome crosses process boundaries (the executor reports it), a verdict never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "Ack",
    "DeadLetter",
    "Defer",
    "Died",
    "ErrorInfo",
    "Expired",
    "Failed",
    "Interrupted",
    "Lapsed",
    "Limited",
    "Outcome",
    "Recorded",
    "Rejected",
    "Release",
    "Retry",
    "RetryAsked",
    "Revoked",
    "Succeeded",
    "Unregistered",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as data: `type` is its class name, `stack` the traceback's text."""

    type: str
    message: str
    stack: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The task returned. `payload` is its result, encoded; None when results are ignored."""

    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The task raised or overran its hard limit. `retryable`: the retry policy's type lists allow another attempt."""

    error: ErrorInfo
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class RetryAsked:
    """The task called `current_task().retry(...)`. `delay` None: as the policy has it; `overrides` hold for later attempts."""

    error: ErrorInfo
    delay: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """We stopped it, or never started it: nothing is held against the task."""


@dataclass(frozen=True, slots=True)
class Died:
    """The executor died under this task alone."""

    cause: str


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The executor died under several tasks, any of which may be guilty."""

    cause: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """An operator or producer revoked the task. `at`: when, in seconds since the epoch."""

    reason: str | None = None
    requested_by: str | None = None
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """Its `expires` passed before it started."""


@dataclass(frozen=True, slots=True)
class Unregistered:
    """No executor of this worker knows the task's name."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A rate limit puts it off. `wait`: the limiter's seconds; None when it did not say."""

    wait: float | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An earlier delivery of this attempt ended; only its settlement was lost. `dead_letter`: why it failed for good, if so."""

    dead_letter: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not runnable, however often it is tried: malformed, tampered, too large. `reason` becomes the dead letter's."""

    reason: str
    error: ErrorInfo


Outcome: TypeAlias = (
    Succeeded
    | Failed
    | RetryAsked
    | Interrupted
    | Died
    | Lapsed
    | Revoked
    | Expired
    | Unregistered
    | Limited
    | Recorded
    | Rejected
)


# ---------------------------------------------------------------- verdicts


@dataclass(frozen=True, slots=True)
class Ack:
    """Done with for good."""


@dataclass(frozen=True, slots=True)
class Release:
    """Back at once, ahead of what waits at its priority. The attempt is not counted."""


@dataclass(frozen=True, slots=True)
class Defer:
    """Back in `delay` seconds of the broker's clock. The attempt is not counted."""

    delay: float


@dataclass(frozen=True, slots=True)
class Retry:
    """Back in `delay` seconds of the broker's clock, as the next attempt."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Set aside with the reason; an operator can replay it. There is no way to drop a task."""

    reason: str
    meta: Mapping[str, Any] = field(default_factory=dict)


Verdict: TypeAlias = Ack | Release | Defer | Retry | DeadLetter
