"""What a supervisor tells about its children: events as they happen, statistics when asked. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from stem_actors.supervision.reasons import ExitReason

__all__ = [
    "ChildExited",
    "ChildRestarted",
    "ChildStarted",
    "ChildStatistics",
    "Event",
    "SupervisorFailed",
    "SupervisorStatistics",
]


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """A child got through its start, for the first time or again."""

    supervisor: str
    child_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class ChildExited:
    """A child ended, or was given up."""

    supervisor: str
    child_id: str
    generation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class ChildRestarted:
    """A child is being started again, as its life number `generation`.

    `reason` is why its last life ended; `cause` whose end made the restart necessary: its own id, or a sibling's.
    """

    supervisor: str
    child_id: str
    generation: int
    reason: ExitReason
    cause: str


@dataclass(frozen=True, slots=True)
class SupervisorFailed:
    """A supervisor gives up: it stops its children, then ends with `reason`."""

    supervisor: str
    reason: ExitReason


Event: TypeAlias = ChildStarted | ChildExited | ChildRestarted | SupervisorFailed


@dataclass(frozen=True, slots=True)
class ChildStatistics:
    """One child, as its supervisor sees it.

    `state` is idle (waiting for its start or restart), starting, running, stopping or done. `restarts` counts those it
    caused itself, by label of the reason. `progress_age` is the seconds since it was last seen to have finished a
    message (its start counts), exact to one tick; it only means trouble while `handler` says that it is at work.
    """

    id: str
    state: str
    generation: int
    restarts: Mapping[str, int]
    mailbox_depth: int
    progress_age: float
    handler: str
    nested: SupervisorStatistics | None


@dataclass(frozen=True, slots=True)
class SupervisorStatistics:
    """A supervisor and its children, in their order."""

    name: str
    strategy: str
    closing: ExitReason | None
    children: tuple[ChildStatistics, ...]
