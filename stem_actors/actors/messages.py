"""What the actors of a worker tell each other, grouped by who handles it.

All in one file, since most pairs talk both ways and would import each other. What an actor tells only itself stays in its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stem_actors.actors.catalogue import Rule
from stem_actors.executors.process import ExecutorProcess
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Delivery, Lease
from stem_actors.model.outcome import Limited, Outcome
from stem_actors.model.record import TaskRecord
from stem_actors.model.retry import RetryPolicy
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.ports import Answer, Revocation
from stem_actors.supervision.mailbox import Data

__all__ = [
    "AUTOSCALER",
    "BURST_WATCH",
    "CONSUMER",
    "EXECUTOR_POOL",
    "HEARTBEAT",
    "HOUSEKEEPER",
    "LEASE_RENEWER",
    "REVOKE_LISTENER",
    "SETTLER",
    "AckFirst",
    "AckedFirst",
    "Announce",
    "Announced",
    "AskLoad",
    "AskPermits",
    "ConcurrencyChanged",
    "ConsumerStarted",
    "Credit",
    "Deliver",
    "Errand",
    "ErrandDone",
    "ExecutorFailed",
    "ExecutorUp",
    "Finished",
    "FreeKey",
    "FreePlaces",
    "Held",
    "HeldReleased",
    "InFlight",
    "KeyFreed",
    "LeasesLost",
    "Load",
    "MarkStarted",
    "Marked",
    "Note",
    "PausesChanged",
    "Permit",
    "Permitted",
    "PlacesLost",
    "Recover",
    "ReleaseHeld",
    "RenewNow",
    "RenewalRound",
    "Renewed",
    "Resend",
    "RevocationsKnown",
    "Revoke",
    "Run",
    "Settled",
    "SettlerStarted",
    "Shutdown",
    "ShutdownMode",
    "StopFetching",
]

SETTLER = "settler"
LEASE_RENEWER = "lease_renewer"
EXECUTOR_POOL = "executor_pool"
CONSUMER = "consumer"
HOUSEKEEPER = "housekeeper"
HEARTBEAT = "heartbeat"
REVOKE_LISTENER = "revoke_listener"
BURST_WATCH = "burst_watch"
AUTOSCALER = "autoscaler"


class Run(NamedTuple):
    """What became of one delivery. `started_at` in seconds since the epoch, 0 when it never started.

    `is_acked`: the broker was told before it started, and only its record is still to be written.
    """

    delivery: Delivery
    outcome: Outcome
    policy: RetryPolicy
    started_at: float = 0.0
    seconds: float = 0.0
    is_acked: bool = False


# ---------------------------------------------------------------- to the consumer


@dataclass(frozen=True, slots=True)
class Credit:
    """Fetch `count` deliveries more; less than 0: so many fewer, as far as they are not fetched yet."""

    count: int


@dataclass(frozen=True, slots=True)
class Recover:
    """Hand over those of these leases that are held."""

    tokens: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class StopFetching:
    """The worker is leaving. Answered to the executor pool by `FetchingStopped`."""


# ---------------------------------------------------------------- to the consumer and the executor pool


@dataclass(frozen=True, slots=True)
class PausesChanged:
    """`Vitals.paused` has."""


# ---------------------------------------------------------------- to the executor pool


@dataclass(frozen=True, slots=True)
class Deliver(Data):
    """Deliveries for the pool, as fetched; `recovered` when they were held already, and no credit was spent on them.

    `judged`: more of them, which need no run: the consumer knows their outcome.
    """

    deliveries: Sequence[Delivery]
    judged: Sequence[tuple[Delivery, Outcome]] = ()
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Held(Data):
    """Leases that this worker holds, by token. Which of them does the pool not know? Answered by `Recover`.

    Asked for instead of handing them over at once: what the pool has never heard of and what it has just settled look alike.
    But what it does not know at this moment, and is still held a moment later, nobody knows.
    """

    tokens: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class ConsumerStarted:
    """A consumer that has no credit yet."""


@dataclass(frozen=True, slots=True)
class FetchingStopped:
    """What the consumer has received was handed over before this; nothing more will come."""


@dataclass(frozen=True, slots=True)
class SettlerStarted:
    """A settler that has heard of no outcome yet."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The broker's answers, by lease token."""

    answers: Sequence[tuple[int | str, Answer]]


@dataclass(frozen=True, slots=True)
class Marked:
    """The broker's answer to a `MarkStarted`."""

    token: int | str
    answer: Answer


@dataclass(frozen=True, slots=True)
class AckedFirst:
    """The broker's answer to an `AckFirst`."""

    token: int | str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Announced:
    """What the result store said to an `Announce`, by token: the record of a run of this attempt that ended, or None."""

    records: Mapping[int | str, TaskRecord | None]


@dataclass(frozen=True, slots=True)
class Permitted:
    """The rate limiter's answers to an `AskPermits`, by token: None for those that may run."""

    answers: Mapping[int | str, Limited | None]


@dataclass(frozen=True, slots=True)
class ErrandDone:
    """What an executor's errand came to: error class and text, or the answer, packed."""

    process: ExecutorProcess
    number: int
    error: Sequence[str] | None
    answer: bytes


@dataclass(frozen=True, slots=True)
class HeldReleased:
    """What an earlier pool of this incarnation held has been released."""


@dataclass(frozen=True, slots=True)
class RenewalRound:
    """Tell the lease renewer what is in flight."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """These leases now end at the deadlines given (`Clock.monotonic()`), by token."""

    deadlines: Mapping[int | str, float]


@dataclass(frozen=True, slots=True)
class KeyFreed:
    """The broker has answered `FreeKey`."""

    token: int | str
    answer: Answer


@dataclass(frozen=True, slots=True)
class PlacesLost:
    """Others have the places of these holders by now."""

    holders: Sequence[str]


@dataclass(frozen=True, slots=True)
class LeasesLost:
    """The broker has given these away."""

    tokens: Sequence[int | str]


@dataclass(frozen=True, slots=True)
class Revoke:
    """Revocations that were not known before."""

    revocations: Sequence[Revocation]


@dataclass(frozen=True, slots=True)
class RevocationsKnown:
    """All that stood in the store has been told since the pool asked (`Resend`)."""


@dataclass(frozen=True, slots=True)
class ConcurrencyChanged:
    """`Vitals.concurrency` has."""


@dataclass(frozen=True, slots=True)
class AskLoad:
    """Tell the autoscaler a `Load`."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Leave, in this mode."""

    mode: ShutdownMode


@dataclass(frozen=True, slots=True)
class ExecutorUp:
    """A process for slot `slot` is running; it has not said hello yet. Identity of the request: `ticket`."""

    slot: int
    ticket: int
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class ExecutorFailed:
    """No process could be started for slot `slot`."""

    slot: int
    ticket: int
    error: str


# ---------------------------------------------------------------- to the settler


@dataclass(frozen=True, slots=True)
class Errand:
    """Something that a task has its worker do at the broker; see `executors/errands.py`. Answered by `ErrandDone`."""

    process: ExecutorProcess
    number: int
    errand: int
    payload: Any


@dataclass(frozen=True, slots=True)
class Finished:
    """Runs that ended."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Note:
    """Runs that go on: worth a record. `progress` holds percent and data by token, of those that reported."""

    runs: Sequence[Run]
    progress: Mapping[int | str, tuple[float, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MarkStarted:
    """Mark a suspect before it starts."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class AckFirst:
    """Acknowledge a delivery that is about to start (`acks_late=False`)."""

    delivery: Delivery


class Permit(NamedTuple):
    """What is asked for one delivery: that these limits allow it. `expected`: seconds that its run takes, as far as is known."""

    delivery: Delivery
    limits: Sequence[Rule]
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class AskPermits:
    """Ask the rate limiter whether these may run."""

    permits: Sequence[Permit]


@dataclass(frozen=True, slots=True)
class FreePlaces:
    """Runs have ended, or will not start here: what they held of concurrency limits is free."""

    places: Sequence[Place]


@dataclass(frozen=True, slots=True)
class FreeKey:
    """A unique task is about to start and holds its key until then only. Answered by `KeyFreed`."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Announce:
    """Say to the result store that these redeliveries are about to run."""

    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Release every lease of this incarnation, after the outcomes that are queued before this."""


# ---------------------------------------------------------------- to the lease renewer


@dataclass(frozen=True, slots=True)
class InFlight:
    """Leases and places that should be renewed now, and when to ask again (seconds)."""

    leases: Sequence[Lease]
    next_round: float
    places: Sequence[Place] = ()


@dataclass(frozen=True, slots=True)
class RenewNow:
    """Ask the pool at once: a delivery with a shorter lease has come, or a task wants its lease renewed."""


# ---------------------------------------------------------------- to the autoscaler


@dataclass(frozen=True, slots=True)
class Load:
    """Deliveries that this worker holds, running or not."""

    inflight: int


# ---------------------------------------------------------------- to the revoke listener


@dataclass(frozen=True, slots=True)
class Resend:
    """A new pool knows no revocations."""
