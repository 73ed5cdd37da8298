"""A delivery: an envelope as one consumer holds it for one attempt, with its state and its lease.

Owns the four counters and how they move; the wire form of `State` stands here too, since brokers change it when a lease lapses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from stem_actors.errors import MalformedMessage
from stem_actors.model.envelope import Envelope

__all__ = ["Delivery", "Handout", "Lease", "State", "pack_state", "unpack_state"]


class State(NamedTuple):
    """What changes about a task while it travels. Written by brokers and workers, never signed.

    `attempt`         runs that ended in failure or asked for a retry; bounded by `max_retries`
    `delivery_count`  times handed out for whatever reason; never reset, no limit; orders results
    `deaths`          the cause of each death charged to it; bounded by `max_deliveries`
    `lapses`          times lost together with others; cleared by a run that ends
    """

    attempt: int = 0
    delivery_count: int = 0
    deaths: Sequence[str] = ()
    lapses: int = 0
    not_before: float | None = None
    replay_count: int = 0
    last_replay_at: float | None = None
    replayed_at_attempt: int = 0
    hand_backs: int = 0
    overrides: Mapping[str, Any] = {}

    def handed_out(self) -> State:
        """Given to a consumer once more."""
        return self._replace(delivery_count=self.delivery_count + 1, not_before=None)

    def retried(self, overrides: Mapping[str, Any] | None = None) -> State:
        """Ran and failed, or asked for a retry."""
        return self._replace(attempt=self.attempt + 1, lapses=0, overrides={**self.overrides, **(overrides or {})})

    def died(self, cause: str) -> State:
        """Its executor died under it alone, or it lapsed as a marked suspect."""
        return self._replace(deaths=(*self.deaths, cause))

    def lapsed(self) -> State:
        """Lost with others, any of which may be guilty: charges nothing."""
        return self._replace(lapses=self.lapses + 1)

    def handed_back(self) -> State:
        """Returned because this worker does not know the task's name."""
        return self._replace(hand_backs=self.hand_backs + 1)

    def replayed(self, at: float) -> State:
        """Taken out of the dead letters at `at`: a new budget of retries and deaths, the attempt counter kept."""
        return self._replace(
            replay_count=self.replay_count + 1,
            last_replay_at=at,
            replayed_at_attempt=self.attempt,
            deaths=(),
            lapses=0,
            hand_backs=0,
            not_before=None,
        )


FRESH = State()
_MOST = 2**53  # what adds up to more than this is no counter of ours, and might not fit where it is written next


def pack_state(state: State) -> bytes:
    """The wire form; empty for a task that was never handed out, which is by far the most frequent."""
    if state == FRESH:
        return b""
    fields = list(state)
    fields[4] = _milliseconds(state.not_before)
    fields[6] = _milliseconds(state.last_replay_at)
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_state(raw: bytes) -> State:
    """Read the wire form.

    Raises:
        MalformedMessage: the bytes are no state of ours.
    """
    if not raw:
        return FRESH
    try:
        fields: Any = msgpack.unpackb(raw, use_list=False, strict_map_key=True)
        counters = (fields[0], fields[1], fields[3], fields[5], fields[7], fields[8])
        if not all(isinstance(counter, int) and 0 <= counter <= _MOST for counter in counters):
            raise TypeError("a counter is not a number in range")
        if not all(moment is None or (isinstance(moment, int) and abs(moment) <= _MOST) for moment in (fields[4], fields[6])):
            raise TypeError("a time is not a number in range")
        if not isinstance(fields[2], tuple) or not all(isinstance(cause, str) for cause in fields[2]):
            raise TypeError("a cause of death is no text")
        if not isinstance(fields[9], dict) or not isinstance(fields[9].get("max_retries"), int | None):
            raise TypeError("an override has the wrong type")
        state = State(*fields[: len(State._fields)])
        return state._replace(not_before=_seconds(state.not_before), last_replay_at=_seconds(state.last_replay_at))
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise MalformedMessage("malformed", f"the delivery's state cannot be read: {error}") from error


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


class Lease(NamedTuple):
    """The exclusive hold on one delivery.

    `token`       unique for ever: a new one at every hand-out, so an old holder is always recognized
    `holder`      the incarnation that holds it
    `queue`       where the delivery came from; every operation on a lease needs it
    `visibility`  how long the lease lasts unless extended, seconds
    `deadline`    its end as the holder counts it: `Clock.monotonic()` before the request was sent, plus `visibility`
    """

    token: int | str
    holder: str
    queue: str
    visibility: float
    deadline: float


class Handout(NamedTuple):
    """What a broker hands out: a body it has not looked into, its state (this hand-out counted) and the lease on it.

    `state` is None when its bytes could not be read. Body and state may be garbage that somebody pushed into the queue;
    garbage must become a dead letter of its own, not an exception that takes a batch along.
    """

    lease: Lease
    id: str
    body: bytes
    state: State | None
    sig: bytes | None = None


class Delivery(NamedTuple):
    """An envelope in the hands of one consumer, for one attempt. `body` is the envelope's bytes as they came."""

    envelope: Envelope
    state: State
    lease: Lease
    body: bytes

    @property
    def max_retries(self) -> int:
        override = self.state.overrides.get("max_retries")
        return self.envelope.max_retries if override is None else int(override)

    @property
    def retries_left(self) -> int:
        """How often it may still be retried; a replay starts a new budget."""
        return max(0, self.max_retries - (self.state.attempt - self.state.replayed_at_attempt))
