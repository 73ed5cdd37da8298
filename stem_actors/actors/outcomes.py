"""What became of runs: an executor's report as an outcome, and the blame when an executor dies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stem_actors.actors.flights import Flight
from stem_actors.actors.slots import Slot
from stem_actors.executors.frames import RETURNED, EndKind
from stem_actors.model.outcome import (
    Died,
    ErrorInfo,
    Failed,
    Interrupted,
    Lapsed,
    Outcome,
    Rejected,
    RetryAsked,
    Succeeded,
    Unregistered,
)

__all__ = ["UNKNOWN", "blamed", "final", "reported"]

UNKNOWN = "unknown"
"""How a cause begins that nobody could find out."""


def reported(flight: Flight, kind: int, detail: Any) -> Outcome:
    """The outcome of a run as its executor reported it. One that we interrupted counts as what we interrupted it for."""
    if kind == RETURNED:
        return Succeeded(detail)
    if flight.interrupt_outcome is not None and kind in (EndKind.RAISED, EndKind.INTERRUPTED, EndKind.ASKED_RETRY):
        return flight.interrupt_outcome
    match kind:
        case EndKind.RAISED:
            return Failed(ErrorInfo(detail[0], detail[1], detail[2] or None), detail[3])
        case EndKind.ASKED_RETRY:
            return RetryAsked(ErrorInfo("RetryRequested", detail[1], detail[2] or None), detail[3], detail[4])
        case EndKind.UNREGISTERED:
            return Unregistered()
        case EndKind.UNREADABLE:
            return Rejected(detail[0], ErrorInfo("Malformed", detail[1]))
        case _:
            return Interrupted()


def final(outcome: Outcome) -> Outcome:
    """The outcome of a run that was acknowledged when it started: whatever it was, there is no other."""
    match outcome:
        case Failed(error):
            return Failed(error, retryable=False)
        case RetryAsked(error):
            return Failed(
                ErrorInfo("RetryRefused", "it asked for a retry, but runs once at most (acks_late=False)", error.stack), False
            )
        case Interrupted() | Lapsed() | Died() | Unregistered():
            what = f"its executor died: {outcome.cause}" if isinstance(outcome, Lapsed | Died) else "its worker had to let it go"
            return Failed(ErrorInfo("WorkerLost", f"{what}; it runs once at most (acks_late=False)"), False)
        case _:
            return outcome


def blamed(slot: Slot, claimed: Sequence[Flight], cause: str) -> Iterator[tuple[Flight, Outcome]]:
    """What a dead executor's claims without outcome count as.

    What we killed is judged by the slot's verdicts and its neighbours are released. Else a task that was alone is guilty;
    of several, or when nobody knows the cause, each takes a lapse. A suspect that was marked started is charged in any case.
    """
    guilty_is_known = len(claimed) == 1 and not cause.startswith(UNKNOWN)
    for flight in claimed:
        if flight.claim in slot.verdicts:
            yield flight, slot.verdicts[flight.claim]
        elif slot.spares:
            yield flight, Interrupted()
        elif guilty_is_known or (flight.is_marked and flight.is_suspect):
            yield flight, Died(cause)
        else:
            yield flight, Lapsed(cause)
