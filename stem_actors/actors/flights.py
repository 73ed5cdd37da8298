"""What a worker holds: one `Flight` per lease, from hand-over until the broker has answered for its settlement.

Plain bookkeeping for the pool, which is its only user: which flights there are, by lease and by claim, and how many more there
should be (credit).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from stem_actors.actors.catalogue import Rule
from stem_actors.actors.messages import Run
from stem_actors.executors.frames import InterruptKind
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Delivery
from stem_actors.model.outcome import Outcome
from stem_actors.model.retry import DEFAULT_BACKOFF

__all__ = ["Flight", "Flights", "Stage"]

MOST_IN_FLIGHT = 1024
MOST_BYTES = 16 * 1_048_576
AHEAD = 0.05
"""Seconds of work to hold beyond what runs, while tasks are known to be short."""


class Stage(Enum):
    WAITING = "waiting"  # in the pool
    LIMITED = "limited"  # by a rate, and the limiter is being asked
    ANNOUNCING = "announcing"  # a redelivery that the result store is being told of
    ACKING = "acking"  # acknowledged before it starts, which the broker is being told
    FREEING = "freeing"  # it holds no key from its start on, which the broker is being told
    MARKING = "marking"  # it was lost before, and the mark that it starts is on its way to the broker
    INSIDE = "inside"  # handed to an executor, running there or about to
    ENDED = "ended"  # the settler has its outcome


# Looked at for every task; a look into an Enum takes ten times as long as one at a name of the module.
_WAITING = Stage.WAITING


class Flight:
    """One delivery in this worker's hands. Times are `Clock.monotonic()`.

    A plain class with defaults in the class for what is seldom touched, since one is made for every task. What every task's way
    looks at again and again is taken out of its delivery once.

    `limits`, `places`  what is asked of the limiter before it may run, and what it holds of that as long as it is here
    `runs_alone`  it was lost with others once: it shares no process, and is marked at the broker before it starts
    `tells_first`  the broker hears something of it before it starts, see `clearance.py`
    """

    is_async: bool = False
    soft_limit: float | None = None
    hard_limit: float | None = None
    ignore_result: bool = False
    is_exclusive: bool = False
    runs_alone: bool = False
    tells_first: bool = False
    acks_early: bool = False
    frees_key: bool = False
    limits: Sequence[Rule] = ()
    places: Sequence[Place] = ()
    slot: int = -1
    started_at: float | None = None
    is_marked: bool = False
    is_noted: bool = False
    interrupt: InterruptKind | None = None
    interrupt_outcome: Outcome | None = None
    nudges_left: int = 0
    kill_at: float | None = None
    progress: tuple[float, Any] | None = None
    run: Run | None = None

    def __init__(self, delivery: Delivery, claim: int, received_at: float) -> None:
        envelope, state, lease, body = delivery
        self.delivery = delivery
        self.claim = claim
        self.received_at = received_at
        self.token, _, _, _, self.deadline = lease
        self.name = envelope.name
        self.expires_at = envelope.expires_at
        self.size = len(body)
        if state.lapses:
            self.runs_alone = self.tells_first = True
        self.stage = _WAITING
        self.policy = DEFAULT_BACKOFF
        self.expected: float | None = None
        self.is_acked = False
        self.is_lost = False

    @property
    def is_suspect(self) -> bool:
        """It was lost with others twice: it runs one at a time."""
        return self.delivery.state.lapses >= 2


class Flights:
    """All flights of a worker. A worker may hold an old and a new delivery of one task, so the key is the lease."""

    def __init__(self) -> None:
        self._by_token: dict[int | str, Flight] = {}
        self._by_claim: dict[int, Flight] = {}
        self._bytes = 0
        self._last_claim = 0
        self.get = self._by_token.get
        self.by_claim = self._by_claim.get

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._by_token.values())

    def __contains__(self, token: int | str) -> bool:
        return token in self._by_token

    def add(self, delivery: Delivery, now: float) -> Flight:
        """Take a delivery into the books."""
        self._last_claim = claim = self._last_claim + 1
        flight = Flight(delivery, claim, now)
        self._by_token[flight.token] = flight
        self._by_claim[claim] = flight
        self._bytes += flight.size
        return flight

    def remove(self, token: int | str) -> Flight | None:
        """Strike a delivery off; None when it was unknown."""
        flight = self._by_token.pop(token, None)
        if flight is not None:
            del self._by_claim[flight.claim]
            self._bytes -= flight.size
        return flight

    def wanted(self, slots: int, prefetch: int, run_time: float | None, is_hoarding: bool) -> int:
        """How many flights this worker should hold.

        `slots` run at once, `prefetch` more wait; more still while runs are known to be short, so that short tasks stream and
        long ones are not hoarded. With `is_hoarding`, what waits will not start soon: only free slots are worth filling.
        """
        if self._bytes >= MOST_BYTES:
            return 0
        if is_hoarding:
            return slots
        ahead = 0 if run_time is None else int(slots * AHEAD / max(run_time, 1e-6))
        return min(MOST_IN_FLIGHT + slots, slots + max(prefetch, min(ahead, MOST_IN_FLIGHT)))
