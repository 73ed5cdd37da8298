"""The supervisor: starts its children in order, restarts those that end, stops them in reverse order.

Everything is an event: a report of a child or a timer. Each changes the state of one child, and then `_advance` takes the
next step that state allows, if any: stop the last one that must go, or start the first one that must come. So a supervisor
never waits, and what happens during a restart or a shutdown (another crash, a hanging start) needs no code of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias, assert_never

from pykka._envelope import Envelope  # what ActorRef.tell wraps every message in; pykka has no public name for it

from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import ChildSpec, Restart, Start, Strategy, check_unique
from stem_actors.supervision.context import ActorContext, Exited, Report, Started
from stem_actors.supervision.directory import DuplicateChild, Life
from stem_actors.supervision.events import (
    ChildExited,
    ChildRestarted,
    ChildStarted,
    Event,
    SupervisorFailed,
    SupervisorStatistics,
)
from stem_actors.supervision.mailbox import Mailbox
from stem_actors.supervision.reasons import (
    ExitReason,
    IntensityExceeded,
    Normal,
    Shutdown,
    StartTimeout,
    Stuck,
    Vanished,
    reason_of,
)
from stem_actors.supervision.record import ChildRecord, State

__all__ = ["Supervisor", "supervisor"]

_logger = logging.getLogger("stem.supervision")


@dataclass(frozen=True, slots=True)
class _Tick:
    """Time to look for stuck and vanished children."""


@dataclass(frozen=True, slots=True)
class _BackoffOver:
    """A child may be started again."""


@dataclass(frozen=True, slots=True)
class _StartOverdue:
    """A child did not get through its start."""

    child_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class _StopOverdue:
    """A child did not end when told to."""

    child_id: str
    generation: int


_Message: TypeAlias = Started | Exited | _Tick | _BackoffOver | _StartOverdue | _StopOverdue


class Supervisor(StemActor):
    """Keeps its children alive, or fails.

    Owns:     its children's lives, from launch to exit; nobody else starts or stops them.
    Receives: Started, Exited (from its children).      Tells: its own supervisor, the same.

    It has started when all its children have. `on_event` is called in the supervisor's thread and must not block.
    """

    announces_itself = True

    def __init__(
        self,
        context: ActorContext,
        children: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        on_event: Callable[[Event], None] | None = None,
        *,
        tick: float = 1.0,
    ) -> None:
        check_unique(context.name, children)
        super().__init__(context)
        self._strategy = strategy
        self._on_event = on_event or context.on_event
        self._tick = tick
        self._children = [ChildRecord(spec, index) for index, spec in enumerate(children)]
        self._by_id = {child.spec.id: child for child in self._children}
        self._halt_from: int | None = None  # children from here on are being stopped, to be started again together
        self._halt_cause = ""
        self._closing: ExitReason | None = None  # all children are being stopped, then we end with this
        self._has_announced = False
        self._looked_at = self.clock.monotonic()

    def on_start(self) -> None:
        if self.context.runtime.can_hang:
            self.after(self._tick, _Tick())
        self._advance()

    def on_receive(self, message: _Message) -> None:
        match message:
            case Started(child_id, generation):
                self._started(child_id, generation)
            case Exited(child_id, generation, reason):
                self._exited(child_id, generation, reason)
            case _Tick():
                self._look_around()
            case _BackoffOver():
                self._advance()
            case _StartOverdue(child_id, generation):
                self._start_overdue(child_id, generation)
            case _StopOverdue(child_id, generation):
                self._stop_overdue(child_id, generation)
            case _:
                assert_never(message)

    def statistics(self) -> SupervisorStatistics:
        """How the children are, nested supervisors included. Any thread; each field is current, not all of one instant."""
        now = self.clock.monotonic()
        children = tuple(child.statistics(now, _nested(child.life)) for child in self._children)
        return SupervisorStatistics(self.name, self._strategy.value, self._closing, children)

    # A supervisor that is stopped, killed or broken takes its children along first --------------------------------

    def stop_requested(self) -> None:
        self._close(Normal() if self._is_leaving else Shutdown())
        self._advance()

    def kill_requested(self) -> None:
        if self._closing is None:
            super().kill_requested()

    def end_by_error(self, error: BaseException) -> None:
        if self._closing is None:
            _logger.error("supervisor %r crashed", self.name, exc_info=error, extra={"child_id": self.name})
            try:
                self._close(reason_of(error))
                self._advance()
                return
            except BaseException as second:
                error = second
        super().end_by_error(error)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Failed while closing: let go of the children, and since they may live on, end as stuck."""
        self.end_with(Stuck(self.name, "closing"))
        for child in self._children:
            if child.life is not None:
                self.context.directory.abandon(child.life)

    # What happens to a child --------------------------------------------------------------------------------------

    def _started(self, child_id: str, generation: int) -> None:
        child = self._by_id[child_id]
        if child.generation != generation or child.state is not State.STARTING:
            return  # of a life given up, or one told to stop meanwhile
        child.cancel_timer()
        child.started(self.clock.monotonic())
        self._tell_of(ChildStarted(self.name, child_id, generation))
        self._advance()

    def _exited(self, child_id: str, generation: int, reason: ExitReason) -> None:
        child = self._by_id[child_id]
        life = child.life
        if life is None or child.generation != generation:
            return  # of a life given up
        self.context.directory.remove(life)
        child.cancel_timer()
        verdict, child.verdict = child.verdict, None
        if verdict is not None and not isinstance(reason, Stuck):
            reason, child.state = verdict, State.STARTING
        was, child.state, child.life = child.state, State.DONE, None  # done, unless decided otherwise below
        self._tell_of(ChildExited(self.name, child_id, generation, reason))
        if isinstance(reason, Stuck):
            self._close(reason)
        elif self._closing is None and was is State.STOPPING:
            self._stopped_for_sibling(child, reason)
        elif self._closing is None and child.spec.restarts_after(reason):
            self._restart(child, reason)
        self._advance()

    def _stopped_for_sibling(self, child: ChildRecord, reason: ExitReason) -> None:
        """It made room for a sibling's restart: how it went is not held against it."""
        if child.spec.restart is not Restart.TEMPORARY:
            child.state = State.IDLE
            child.not_before = 0.0
            child.restart_because = reason, self._halt_cause

    def _restart(self, child: ChildRecord, reason: ExitReason) -> None:
        if not child.plan_restart(reason, self.clock.monotonic(), self.context.random):
            self._close(IntensityExceeded(child.spec.id, reason))
            return
        match self._strategy:
            case Strategy.ONE_FOR_ONE:
                return
            case Strategy.ONE_FOR_ALL:
                first = 0
            case Strategy.REST_FOR_ONE:
                first = child.index
            case _:
                assert_never(self._strategy)
        if self._halt_from is None or first < self._halt_from:
            self._halt_from, self._halt_cause = first, child.spec.id

    def _start_overdue(self, child_id: str, generation: int) -> None:
        child = self._by_id[child_id]
        if child.life is not None and child.generation == generation and child.state is State.STARTING:
            reason = StartTimeout(child.spec.longest_start)
            if child.spec.start.children:  # a supervisor still listens, and must take along what it has started already
                self._stop_child(child)
                child.verdict = reason
            else:
                self._give_up(child, child.life, reason)

    def _stop_overdue(self, child_id: str, generation: int) -> None:
        child = self._by_id[child_id]
        if child.life is not None and child.generation == generation and child.state is State.STOPPING:
            self._give_up(child, child.life, Stuck(child_id, child.life.handler_name()))

    def _look_around(self) -> None:
        """Find what sends no report: threads that are gone, and handlers that do not return."""
        self.after(self._tick, _Tick())
        now = self.clock.monotonic()
        gap, self._looked_at = min(now - self._looked_at, 2 * self._tick), now
        for child in self._children:
            life = child.life
            if life is None:
                continue
            if life.has_vanished():
                # A supervisor's children may live on without it: that is as good as stuck.
                self._give_up(child, life, Stuck(child.spec.id, "vanished") if child.spec.start.children else Vanished())
            elif child.overruns(now, gap):
                self._give_up(child, life, Stuck(child.spec.id, life.handler_name()))

    def _give_up(self, child: ChildRecord, life: Life, reason: ExitReason) -> None:
        self.context.directory.abandon(life)
        if life.has_vanished():
            life.mailbox.close()
        self._exited(child.spec.id, child.generation, reason)

    # The next step ------------------------------------------------------------------------------------------------

    def _close(self, reason: ExitReason) -> None:
        """Begin to end. The first reason counts, but for `Stuck`: no supervisor above may start what still lives."""
        if self._closing is not None and not isinstance(reason, Stuck):
            return
        is_news = self._closing != reason
        self._closing = reason
        if is_news and not isinstance(reason, Normal | Shutdown):
            _logger.error(
                "supervisor %r fails: %s",
                self.name,
                reason,
                extra={"supervisor": self.name, "reason": reason.label, "detail": str(reason)},
            )
            self._tell_of(SupervisorFailed(self.name, reason))

    def _advance(self) -> None:
        """Take the next step: stop the last child that must go, else start the first that must come."""
        if self.has_ended:
            return
        if self._closing is not None:
            if self._stop_down_to(0):
                self.end_with(self._closing)
            return
        if self._halt_from is not None:
            if not self._stop_down_to(self._halt_from):
                return
            self._halt_from = None
        self._start_next()

    def _stop_down_to(self, first: int) -> bool:
        """Stop children in reverse order, one at a time; True when none is left from `first` on."""
        for child in reversed(self._children[first:]):
            match child.state:
                case State.STOPPING:
                    return False
                case State.STARTING | State.RUNNING:
                    self._stop_child(child)
                    return False
                case State.IDLE | State.DONE:
                    child.cancel_timer()
                case _:
                    assert_never(child.state)
        return True

    def _stop_child(self, child: ChildRecord) -> None:
        assert child.life is not None
        child.cancel_timer()
        child.state = State.STOPPING
        child.timer = self.after(child.spec.longest_stop, _StopOverdue(child.spec.id, child.generation))
        child.life.stop()

    def _start_next(self) -> None:
        """Start what may start now: one after the other, but a child in backoff holds up only those that depend on it."""
        now = self.clock.monotonic()
        for child in self._children:
            match child.state:
                case State.IDLE if child.not_before > now:
                    child.cancel_timer()
                    child.timer = self.after(child.not_before - now, _BackoffOver())
                    if self._strategy is not Strategy.ONE_FOR_ONE:
                        return
                case State.IDLE:
                    self._launch(child)
                    return
                case State.STARTING:
                    if child.generation == 1 or self._strategy is not Strategy.ONE_FOR_ONE:
                        return
                case State.STOPPING:
                    return
                case State.RUNNING | State.DONE:
                    pass
                case _:
                    assert_never(child.state)
        if not self._has_announced and all(child.state in (State.RUNNING, State.DONE) for child in self._children):
            self._has_announced = True
            self.announce_started()

    def _launch(self, child: ChildRecord) -> None:
        spec, context = child.spec, self.context
        child.cancel_timer()
        child.generation += 1
        life = Life(spec.id, Mailbox(self.clock, spec.id), generation=child.generation, parent=self.name)
        child.launched(life)
        child.timer = self.after(spec.longest_start, _StartOverdue(spec.id, child.generation))
        because, child.restart_because = child.restart_because, None
        if because is not None:
            self._tell_of_restart(child, *because)
        child_context = ActorContext(
            clock=self.clock,
            life=life,
            directory=context.directory,
            runtime=context.runtime,
            report=self._hear,
            stop_deadline=spec.stop_deadline,
            random=context.random,
            on_event=self._on_event,
        )
        try:
            context.directory.register(life)
            context.runtime.launch(spec.start.factory, child_context)
        except (DuplicateChild, RuntimeError, OSError, MemoryError) as error:  # the name is taken, or no thread can be had
            _logger.exception("could not launch %r", spec.id, extra={"child_id": spec.id})
            self._hear(Exited(spec.id, child.generation, reason_of(error)))

    def _hear(self, report: Report) -> None:
        """Take a report, in the thread of the child that sends it."""
        self.mailbox.put(Envelope(report))

    # What is told to the outside ----------------------------------------------------------------------------------

    def _tell_of_restart(self, child: ChildRecord, reason: ExitReason, cause: str) -> None:
        _logger.warning(
            "restarting %r (life %d): %s",
            child.spec.id,
            child.generation,
            reason,
            extra={
                "supervisor": self.name,
                "child_id": child.spec.id,
                "generation": child.generation,
                "reason": reason.label,
                "detail": str(reason),
                "cause": cause,
                "restarts": child.restarts.total(),
            },
        )
        self._tell_of(ChildRestarted(self.name, child.spec.id, child.generation, reason, cause))

    def _tell_of(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # whoever listens must not bring down what it listens to
            _logger.exception("on_event of supervisor %r failed", self.name)


def supervisor(
    children: Sequence[ChildSpec],
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    on_event: Callable[[Event], None] | None = None,
    *,
    tick: float = 1.0,
) -> Start:
    """A child that is itself a supervisor. Without `on_event` its events go where those of its own supervisor go.

    Its deadlines count from when its children's are used up: a spec need not add them.
    """
    return Start(
        lambda context: Supervisor(context, children, strategy, on_event, tick=tick),
        start_allowance=sum(spec.longest_start for spec in children),
        stop_allowance=sum(spec.longest_stop for spec in children),
        children=tuple(children),
    )


def _nested(life: Life | None) -> SupervisorStatistics | None:
    actor = None if life is None else life.actor
    return actor.statistics() if isinstance(actor, Supervisor) else None
