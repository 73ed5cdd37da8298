"""Why a child ended, as data: what a supervisor decides by and what logs and metrics say.

Owns the reasons and their labels. What follows from one is the supervisor's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from stem_actors.errors import StemError

__all__ = [
    "Crashed",
    "ExitReason",
    "ExitedWith",
    "IntensityExceeded",
    "Killed",
    "KilledByRequest",
    "Normal",
    "Shutdown",
    "StartTimeout",
    "Stuck",
    "Vanished",
    "reason_of",
]


@dataclass(frozen=True, slots=True)
class Normal:
    """It ended by itself, with nothing wrong: an actor called its own `stop()`, a process returned 0."""

    label: ClassVar[str] = "normal"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """It was told to stop and did."""

    label: ClassVar[str] = "shutdown"


@dataclass(frozen=True, slots=True)
class Crashed:
    """An exception left a handler, the start or the stop of an actor. `type` is the exception's class name."""

    type: str
    message: str
    label: ClassVar[str] = "crashed"


@dataclass(frozen=True, slots=True)
class Killed:
    """A process ended by a signal."""

    signal: int
    label: ClassVar[str] = "killed"


@dataclass(frozen=True, slots=True)
class ExitedWith:
    """A process ended by itself with a code other than 0."""

    code: int
    label: ClassVar[str] = "exited-with"


@dataclass(frozen=True, slots=True)
class StartTimeout:
    """It did not get through its start within `seconds`. Its thread was given up and ends when the start returns."""

    seconds: float
    label: ClassVar[str] = "start-timeout"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A thread that can be neither used nor ended: `handler` overran its deadline.

    Nothing inside this process can mend that, so every supervisor above fails with the same reason, up to the root,
    and whoever owns the process replaces it.
    """

    child_id: str
    handler: str
    label: ClassVar[str] = "stuck"


@dataclass(frozen=True, slots=True)
class Vanished:
    """Its thread is gone and left no word."""

    label: ClassVar[str] = "vanished"


@dataclass(frozen=True, slots=True)
class IntensityExceeded:
    """A supervisor gave up: `child_id` ended too often, the last time for `last`."""

    child_id: str
    last: ExitReason
    label: ClassVar[str] = "intensity-exceeded"


ExitReason: TypeAlias = Normal | Shutdown | Crashed | Killed | ExitedWith | StartTimeout | Stuck | Vanished | IntensityExceeded


class KilledByRequest(StemError):
    """What a handler seems to raise when `Directory.kill` asked for it."""


def reason_of(error: BaseException) -> Crashed:
    """The exit reason of an actor that `error` ended; whatever its class, it ends this one actor only."""
    try:
        message = str(error)
    except Exception:
        message = "(its text cannot be had)"
    return Crashed(type(error).__name__, message)
