"""When a broker may take a lapsed lease away, and what becomes of the delivery. Pure, and one for all adapters.

Owns the rules; the adapters own the clock, the storage and the atomic step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from stem_actors.errors import MalformedMessage
from stem_actors.model.delivery import State, pack_state, unpack_state
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import ErrorInfo
from stem_actors.model.record import TaskRecord, replay_facts

__all__ = [
    "POISON",
    "Poisoned",
    "Retention",
    "Returned",
    "Watch",
    "after_lapse",
    "counted",
    "poison_record",
    "readable",
    "repacked",
    "replay_record",
    "swept",
]

SWEEP_INTERVAL = 0.5  # a sweep is in effect at most this often, whoever calls
SWEEP_GAP = 2.0  # a longer pause between two sweeps: holders could not renew either, patience starts anew
SENDER_KEPT = 600.0  # the last number of a sender that publishes no more
NAME_KEPT = 3600.0  # an id chosen by its producer is refused that long after its task's end
LOWEST_FIRST_EVERY = 10  # fetches of an intake
POISON = "poison"  # the reason of such a dead letter


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things last. `result_ttl` None: this broker keeps no records."""

    visibility_timeout: float
    max_deaths: int
    dead_letter_ttl: float
    result_ttl: float | None


class Watch(NamedTuple):
    """What a broker remembers of its sweeps: the last one, and since when there was no gap."""

    last: float
    since: float

    def may_take(self, visibility: float, lease_end: float) -> bool:
        """Whether a lease that ended at `lease_end` may be given to another in the sweep at `last`."""
        return lease_end <= self.last and self.last - self.since >= visibility / 3


def swept(before: Watch | None, now: float) -> Watch | None:
    """The watch after a sweep at `now`; None when the last one is too recent for another.

    A clock that was set back counts as a gap.
    """
    if before is None or now < before.last or now - before.last > SWEEP_GAP:
        return Watch(now, now)
    if now - before.last < SWEEP_INTERVAL:
        return None
    return Watch(now, before.since)


@dataclass(frozen=True, slots=True)
class Returned:
    """Back to the head of its priority. `state` None: it cannot be read, and its bytes stay as they are."""

    state: State | None


@dataclass(frozen=True, slots=True)
class Poisoned:
    """One death too many: a dead letter."""

    state: State

    @property
    def meta(self) -> dict[str, Any]:
        return {"deaths": list(self.state.deaths)}


def after_lapse(state: State | None, is_started: bool, max_deaths: int) -> Returned | Poisoned:
    """What becomes of a delivery whose lease lapsed. `state` counts the hand-out that lapsed.

    Whoever holds one that has lapsed before marks it before it starts: without a mark it only waited, and that counts for
    nothing more. Marked with one lapse it ran beside others, which is a lapse again; a suspect ran alone, which is a death.
    """
    if state is None:
        return Returned(None)
    if not is_started:
        return Returned(state if state.lapses else state.lapsed())
    if state.lapses == 1:
        return Returned(state.lapsed())
    dead = state.died("lease lapsed")
    return Poisoned(dead) if len(dead.deaths) >= max_deaths else Returned(dead)


# ---------------------------------------------------------------- states as stored

_FIRST = State().handed_out()


def readable(raw: bytes) -> State | None:
    """A stored state, or None where the bytes are none."""
    try:
        return unpack_state(raw)
    except MalformedMessage:
        return None


def counted(raw: bytes) -> State | None:
    """The state of a delivery handed out with the stored state `raw`: one hand-out more. None: unreadable."""
    if not raw:
        return _FIRST  # by far the most frequent, and states are immutable
    state = readable(raw)
    return None if state is None else state.handed_out()


def repacked(state: State | None, raw: bytes) -> bytes:
    """The bytes to store for `state`; those that could not be read stay as they are."""
    return raw if state is None else pack_state(state)


# ---------------------------------------------------------------- records that brokers write themselves


def poison_record(task_id: str, queue: str, poisoned: Poisoned, before: TaskRecord | None) -> TaskRecord:
    """The record of a task that a sweep made a dead letter; it keeps what the record before it knew."""
    deaths = list(poisoned.state.deaths)
    error = ErrorInfo(
        "WorkerLost",
        f"its worker died under it each time, {len(deaths)} times, last: {deaths[-1]}",
        meta=poisoned.meta,
    )
    return _annotated(task_id, TaskState.FAILED, queue, poisoned.state, {"deadLetter": POISON}, before, error)


def replay_record(task_id: str, queue: str, state: State, reason: str, delay: float, before: TaskRecord | None) -> TaskRecord:
    """The record of a task taken out of the dead letters; `state` is as replayed."""
    meta = replay_facts(state) | {"lastReplayReason": reason}
    if delay > 0:
        meta["lastReplayDelayMs"] = round(delay * 1000)
    return _annotated(task_id, TaskState.QUEUED, queue, state, meta, before)


def _annotated(
    task_id: str,
    task_state: TaskState,
    queue: str,
    state: State,
    meta: Mapping[str, Any],
    before: TaskRecord | None,
    error: ErrorInfo | None = None,
) -> TaskRecord:
    known = {} if before is None else before.meta
    return TaskRecord(
        task_id,
        task_state,
        state.attempt,
        state.delivery_count,
        state.replay_count,
        error=error,
        meta={"queue": queue, **known, **meta},
    )
