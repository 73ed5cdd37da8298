"""A child as data: how to start it, when to restart it, how long to wait for it."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stem_actors.supervision.context import ActorFactory
from stem_actors.supervision.directory import DuplicateChild
from stem_actors.supervision.reasons import ExitReason, Normal, Shutdown

__all__ = ["Backoff", "ChildSpec", "Intensity", "Restart", "Start", "Strategy", "actor", "check_unique"]


class Restart(enum.Enum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """Only after a failure: neither after `Normal` nor after `Shutdown`."""
    TEMPORARY = "temporary"
    """Never."""


class Strategy(enum.Enum):
    """Whom the end of a child takes along."""

    ONE_FOR_ONE = "one_for_one"
    """Nobody. The initial start does not wait for a child that fails at it."""
    ONE_FOR_ALL = "one_for_all"
    """All its siblings: they are stopped in reverse order, then all are started in order."""
    REST_FOR_ONE = "rest_for_one"
    """Those that stand behind it in the list of children."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most `restarts` restarts of one child within `period` seconds; one more and its supervisor fails."""

    restarts: int = 5
    period: float = 10.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: `initial` seconds, times `factor` each time in a row, `maximum` at most.

    Each wait is spread by up to `jitter` (a fraction) either way. A row ends when a life was as long as the
    intensity's period.
    """

    initial: float = 0.1
    maximum: float = 10.0
    factor: float = 2.0
    jitter: float = 0.2

    def delay(self, row: int, randomness: random.Random) -> float:
        """Seconds before the restart number `row` (1 for the first) in a row."""
        plain = self.initial
        for _ in range(row - 1):
            plain *= self.factor
            if plain >= self.maximum:
                break
        return min(plain, self.maximum) * (1.0 + self.jitter * (2.0 * randomness.random() - 1.0))


@dataclass(frozen=True, slots=True)
class Start:
    """What a child is: build one with `actor`, `supervisor` or `process`.

    The allowances are added to the deadlines of its spec: what its own children may take, or the kernel to reap a process.
    """

    factory: ActorFactory
    start_allowance: float = 0.0
    stop_allowance: float = 0.0
    children: tuple[ChildSpec, ...] = ()


def actor(factory: ActorFactory) -> Start:
    """A child that is an actor: `actor(lambda context: Settler(context, broker))`.

    `factory` runs in the actor's own thread, anew for every life, within the start deadline.
    """
    return Start(factory)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a supervisor keeps one child. Times are seconds.

    `id` is unique in the whole tree. `handler_deadline` is how long one message may take (None: for ever); beyond it the
    actor is stuck, and since no thread can be ended from outside, the whole tree fails. It is looked at once per tick.
    """

    id: str
    start: Start
    restart: Restart = Restart.PERMANENT
    start_deadline: float = 30.0
    stop_deadline: float = 10.0
    handler_deadline: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    intensity: Intensity = field(default_factory=Intensity)

    def restarts_after(self, reason: ExitReason) -> bool:
        """Whether this child is started again when it ended by itself for `reason`. Pure."""
        match self.restart:
            case Restart.PERMANENT:
                return True
            case Restart.TRANSIENT:
                return not isinstance(reason, Normal | Shutdown)
            case Restart.TEMPORARY:
                return False

    @property
    def longest_start(self) -> float:
        """Seconds after which a start has failed."""
        return self.start_deadline + self.start.start_allowance

    @property
    def longest_stop(self) -> float:
        """Seconds after which a child that was told to stop is given up."""
        return self.stop_deadline + self.start.stop_allowance


def check_unique(name: str, children: Sequence[ChildSpec]) -> None:
    """Make sure that nobody below the supervisor `name` bears an id twice.

    Raises:
        DuplicateChild: somebody does.
    """
    seen = {name}
    for child_id in _ids_below(children):
        if child_id in seen:
            raise DuplicateChild(f"child id {child_id!r} occurs twice below {name!r}; ids are unique in the whole tree")
        seen.add(child_id)


def _ids_below(children: Sequence[ChildSpec]) -> Iterator[str]:
    for spec in children:
        yield spec.id
        yield from _ids_below(spec.start.children)
