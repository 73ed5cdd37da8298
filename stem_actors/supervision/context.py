"""What an actor is given to live on, how it comes to life in a thread, and what it reports.

Owns nothing: a supervisor makes a context for each life of each child.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from stem_actors.clock import Clock, SystemClock
from stem_actors.supervision.directory import Directory, Life
from stem_actors.supervision.mailbox import Mailbox
from stem_actors.supervision.reasons import ExitReason, reason_of

if TYPE_CHECKING:
    from stem_actors.supervision.base import StemActor

__all__ = ["ActorContext", "ActorFactory", "Exited", "Report", "Runtime", "Started", "ThreadRuntime", "build", "report_exit"]

_logger = logging.getLogger("stem.supervision")


@dataclass(frozen=True, slots=True)
class Started:
    """A child got through its start."""

    child_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A child ended; it has lost its name already, and its thread is about to."""

    child_id: str
    generation: int
    reason: ExitReason


Report: TypeAlias = Started | Exited


def _to_nobody(report: Report) -> None:
    """Where an actor without a supervisor reports to."""


@dataclass(frozen=True, slots=True)
class ActorContext:
    """What an actor is given, so that it need not reach for anything: time, randomness, its name, its siblings."""

    clock: Clock
    life: Life
    directory: Directory
    runtime: Runtime
    report: Callable[[Report], None] = _to_nobody
    stop_deadline: float = 10.0
    random: random.Random = field(default_factory=random.Random)
    on_event: Callable[[Any], None] | None = None
    """Where a nested supervisor's events go unless it has its own."""

    @property
    def name(self) -> str:
        """The child id."""
        return self.life.child_id

    @classmethod
    def alone(
        cls,
        name: str,
        clock: Clock | None = None,
        directory: Directory | None = None,
        report: Callable[[Report], None] = _to_nobody,
    ) -> ActorContext:
        """A context for an actor that nobody supervises: `Settler.start(ActorContext.alone("settler"))`.

        `report` hears of its start and its end, in its thread.
        """
        clock = clock or SystemClock()
        directory = directory or Directory()
        life = Life(name, Mailbox(clock, name))
        directory.register(life)
        return cls(clock, life, directory, ThreadRuntime(), report)


ActorFactory: TypeAlias = "Callable[[ActorContext], StemActor]"


class Runtime(Protocol):
    """What lets actors live: threads here, the stepper in a simulation.

    `can_hang`: a handler may fail to return and a thread may vanish, so supervisors have to look around.
    """

    @property
    def can_hang(self) -> bool: ...

    def launch(self, factory: ActorFactory, context: ActorContext) -> None:
        """Let `factory` build an actor and run it, without waiting for either. Every end is reported to `context.report`."""
        ...


class ThreadRuntime:
    """Each actor gets a daemon thread of its own, in which it is also built."""

    can_hang = True

    def launch(self, factory: ActorFactory, context: ActorContext) -> None:
        thread = threading.Thread(target=_live, args=(factory, context), name=context.name, daemon=True)
        context.life.thread = thread
        thread.start()


def _live(factory: ActorFactory, context: ActorContext) -> None:
    actor = build(factory, context)
    if actor is not None:
        actor.run()


def build(factory: ActorFactory, context: ActorContext) -> StemActor | None:
    """Build an actor in the thread it will live in; None when that failed, which is reported as its crash."""
    context.life.handler = "__init__"
    try:
        return factory(context)
    except BaseException as error:
        _logger.exception("could not build %r", context.name, extra={"child_id": context.name, "error": type(error).__name__})
        context.directory.remove(context.life)
        context.life.mailbox.close()
        report_exit(context, reason_of(error))
        return None


def report_exit(context: ActorContext, reason: ExitReason) -> None:
    """Tell the supervisor that this life is over: the last thing an actor does."""
    life = context.life
    life.actor = None
    context.report(Exited(life.child_id, life.generation, reason))
    life.has_ended = True
