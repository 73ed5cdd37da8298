"""Runs the same actors one message at a time on one thread, by a clock that is advanced by hand: for simulations.

Owns the order of events. Everything random about it comes from one seed, so a run can be had again. Actors cannot be stuck
here (a handler that never returns never returns), and a process as a child makes no sense.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pykka

from stem_actors.clock import Clock
from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import ChildSpec, Strategy
from stem_actors.supervision.context import ActorContext, ActorFactory, Exited, Report, build
from stem_actors.supervision.directory import ChildGone, Directory, Life
from stem_actors.supervision.events import Event, SupervisorStatistics
from stem_actors.supervision.mailbox import Mailbox
from stem_actors.supervision.reasons import ExitReason
from stem_actors.supervision.supervisor import Supervisor

__all__ = ["SteppedClock", "Stepper"]


class SteppedClock(Clock, Protocol):
    """A clock that stands still until it is told to go on, such as `stem_actors.testing.ManualClock`."""

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds."""
        ...


@dataclass(slots=True)
class _Seat:
    """An actor on its turn: not yet built, or waiting for its next message."""

    factory: ActorFactory
    context: ActorContext
    actor: StemActor | None = None

    def is_ready(self) -> bool:
        return self.actor is None or self.context.life.mailbox.has_next()


class Stepper:
    """A supervision tree on one thread. Which of the actors that have something to do goes next is drawn from `seed`."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        *,
        clock: SteppedClock,
        seed: int = 0,
        on_event: Callable[[Event], None] | None = None,
        name: str = "root",
        tick: float = 1.0,
    ) -> None:
        self.clock = clock
        self.directory = Directory()
        self.reason: ExitReason | None = None
        """Why the root ended; None while it lives."""
        self._random = random.Random(seed)
        self._seats: list[_Seat] = []
        self._life = Life(name, Mailbox(clock, name))
        self.directory.register(self._life)
        context = ActorContext(
            clock, self._life, self.directory, self, report=self._hear, random=random.Random(seed), on_event=on_event
        )
        self._root = Supervisor(context, children, strategy, on_event, tick=tick)
        self.launch(lambda _: self._root, context)

    def launch(self, factory: ActorFactory, context: ActorContext) -> None:
        """Give a new actor its turn; called by supervisors."""
        self._seats.append(_Seat(factory, context))

    def step(self) -> bool:
        """Let one actor handle one message (or start); False when none has anything to do at this moment."""
        ready = [seat for seat in self._seats if seat.is_ready()]
        if not ready:
            return False
        seat = ready[self._random.randrange(len(ready))]
        if seat.actor is None:
            seat.actor = build(seat.factory, seat.context)
            if seat.actor is None:
                self._seats.remove(seat)
                return True
            seat.actor.run_start()
        else:
            seat.actor.run_message(seat.context.life.mailbox.get())
        if seat.actor.has_ended:
            self._seats.remove(seat)
            seat.actor.run_end()
        return True

    def run(self, seconds: float) -> None:
        """Do all there is to do for so many seconds of the clock, which moves from timer to timer."""
        end = self.clock.monotonic() + seconds
        while True:
            while self.step():
                pass
            now = self.clock.monotonic()
            if now >= end:
                return
            due = self._next_due()
            self.clock.advance((end if due is None else min(due, end)) - now)

    def run_until(self, condition: Callable[[], bool], limit: float = 3600.0) -> bool:
        """Go on until `condition` holds; False when it does not within `limit` seconds of the clock, which moves as needed."""
        end = self.clock.monotonic() + limit
        while not condition():
            if self.step():
                continue
            now, due = self.clock.monotonic(), self._next_due()
            if due is None or due > end:
                return False
            self.clock.advance(due - now)
        return True

    def tell(self, child_id: str, message: object) -> bool:
        """Send to whoever is `child_id` now; it is handled in a later step."""
        return self.directory.tell(child_id, message)

    def ask(self, child_id: str, message: object, limit: float = 60.0) -> Any:
        """Send and go on until the reply is there.

        Raises:
            ChildGone: nobody is `child_id` now, or it ended before it came to the message.
            TimeoutError: no reply within `limit` seconds of the clock.
            Exception: whatever the handler raised, which has ended the actor.
        """
        future = self.directory.ask(child_id, message)
        if not self.run_until(lambda: _is_set(future), limit):
            raise TimeoutError(f"child {child_id!r} did not reply to {type(message).__name__} within {limit} s of the clock")
        try:
            return future.get(timeout=0)
        except pykka.ActorDeadError as error:
            raise ChildGone(f"child {child_id!r} ended before it came to {type(message).__name__}; ask its successor") from error

    def stop(self, limit: float = 3600.0) -> ExitReason | None:
        """Stop the tree in order; None when it did not end within `limit` seconds of the clock."""
        self._life.stop()
        self.run_until(lambda: self.reason is not None, limit)
        return self.reason

    def statistics(self) -> SupervisorStatistics:
        """How every child is, nested."""
        return self._root.statistics()

    def _next_due(self) -> float | None:
        return min((due for seat in self._seats if (due := seat.context.life.mailbox.next_due()) is not None), default=None)

    def _hear(self, report: Report) -> None:
        if isinstance(report, Exited):
            self.reason = report.reason


def _is_set(future: pykka.Future[Any]) -> bool:
    try:
        future.get(timeout=0)
    except pykka.Timeout:
        return False
    except Exception:  # it is there, and an error: `ask` raises it
        return True
    return True
