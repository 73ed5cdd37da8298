"""`Space`: all that one namespace holds in memory, behind one lock. The stores are views of it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from stem_actors.clock import Clock
from stem_actors.model.concurrency import Semaphore
from stem_actors.model.delivery import State
from stem_actors.model.lapse import Watch
from stem_actors.model.rate import Bucket
from stem_actors.model.record import TaskRecord
from stem_actors.model.uniqueness import HeldClaim
from stem_actors.ports import Lock, Pause, Revocation

__all__ = ["Dead", "Held", "Space", "Waiting"]

T = TypeVar("T")


class Waiting(NamedTuple):
    """A message that nobody holds. `level`: 9 − priority; `since`: waiting since; `state` None: cannot be read.

    `claim`: the key that it holds until its end.
    """

    queue: str
    level: int
    id: str
    is_named: bool
    visibility: float | None
    since: float
    state: State | None
    sig: bytes | None
    body: bytes
    claim: str | None = None


@dataclass(slots=True)
class Held:
    """A message under a lease; its state counts the hand-out."""

    message: Waiting
    holder: str
    ends: float
    is_started: bool = False


class Dead(NamedTuple):
    message: Waiting
    reason: str
    meta: Mapping[str, Any]
    dead_at: float


@dataclass(slots=True)
class Space:
    """Every attribute is read and written under `changed`, which is notified of whatever somebody may wait for."""

    clock: Clock
    changed: threading.Condition = field(default_factory=threading.Condition)

    ready: dict[str, dict[int, deque[Waiting]]] = field(default_factory=lambda: defaultdict(dict))
    delayed: list[tuple[float, Waiting]] = field(default_factory=list)  # by due time, then by arrival
    leased: dict[int | str, Held] = field(default_factory=dict)  # in the order of hand-out
    dead: dict[str, list[Dead]] = field(default_factory=lambda: defaultdict(list))  # oldest first
    replayed: Counter[str] = field(default_factory=Counter)  # by queue, since a sweep last told
    senders: dict[str, tuple[int, float]] = field(default_factory=dict)
    answers: dict[str, Mapping[str, str]] = field(default_factory=dict)  # what senders of unique messages were last told
    claims: dict[tuple[str, str], HeldClaim] = field(default_factory=dict)  # by queue and key
    names: dict[str, float | None] = field(default_factory=dict)  # chosen ids and when their task ended
    watch: Watch | None = None

    records: dict[str, tuple[TaskRecord, float]] = field(default_factory=dict)  # with their expiry
    revocations: dict[str, Revocation] = field(default_factory=dict)
    pauses: dict[str, Pause] = field(default_factory=dict)
    locks: dict[str, tuple[Lock, float]] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    semaphores: dict[str, Semaphore] = field(default_factory=dict)
    heartbeats: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    control: list[tuple[int, str, bytes, float]] = field(default_factory=list)
    last_number: int = 0

    def next_number(self) -> int:
        """A number never given out before: token, fence, version or message number."""
        self.last_number += 1
        return self.last_number

    def wait_for(self, look: Callable[[], T], timeout: float, until: Callable[[], float | None] = lambda: None) -> T:
        """Call `look` until it returns something true or `timeout` has passed. Under `changed`.

        `until` says in how many seconds it is worth while to look again though nobody notified.
        """
        deadline = self.clock.monotonic() + timeout
        is_over = timeout <= 0
        while not (found := look()) and not is_over:
            left = deadline - self.clock.monotonic()
            soon = until()
            is_over = not self.changed.wait(left if soon is None else min(left, soon)) and (soon is None or left <= soon)
        return found
