"""Runs the same actors one message at a time on one thread, by a clock that is advanced by hand: for simulations.

`Turns` owns the order of events, over any number of trees on one clock; a `Stepper` is one tree. Everything random about it comes
from one seed, so a run can be had again. Actors cannot be stuck here (a handler that never returns never returns), and a process
as a child makes no sense.

A handler that would wait for the outside world cannot be suspended here. What it waits on says so instead, in two ways: `rest`
lets its actor do nothing more until something happens, which is what waiting in vain comes to; `hold` makes all that it sends
from then on leave later, which is all that others could notice of a reply that came late.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pykka
from pykka._envelope import Envelope  # what ActorRef.tell wraps every message in; pykka has no public name for it

from stem_actors.clock import Clock
from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import ChildSpec, Strategy
from stem_actors.supervision.context import ActorContext, ActorFactory, Exited, Report, build
from stem_actors.supervision.directory import ChildGone, Directory, Life
from stem_actors.supervision.events import Event, SupervisorStatistics
from stem_actors.supervision.mailbox import Mailbox
from stem_actors.supervision.reasons import ExitReason
from stem_actors.supervision.supervisor import Supervisor

__all__ = ["SteppedClock", "Stepper", "Turns"]

_LONGEST_MOMENT = 200_000
_SOON, _NEVER = float("-inf"), float("inf")


class SteppedClock(Clock, Protocol):
    """A clock that stands still until it is told to go on, such as `stem_actors.testing.ManualClock`."""

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds."""
        ...


class _SteppedMailbox(Mailbox):
    """A mailbox that also watches made-up descriptors (below 0), and lets a seat hold back what it sends."""

    def __init__(self, turns: Turns, name: str) -> None:
        super().__init__(turns.clock, name)
        self.seat: _Seat | None = None
        self._turns = turns
        self._signals: dict[int, object] = {}

    def put(self, envelope: Envelope[Any], /) -> None:
        sender = self._turns.seat
        if sender is not None and sender.held_until is not None and sender.mailbox is not self:
            sender.held.append((self, envelope))
            return
        super().put(envelope)
        if self.seat is not None:
            self.seat.ready_at = _SOON

    def watch(self, fd: int, message: object, *, write: bool = False) -> None:
        if fd >= 0:
            super().watch(fd, message, write=write)
        elif not write:
            self._signals[fd] = message
            self._has_sources = True
            self._turns.watched(fd, self.seat)

    def unwatch(self, fd: int, *, write: bool | None = None) -> None:
        if fd >= 0:
            super().unwatch(fd, write=write)
        elif not write:
            self._signals.pop(fd, None)
            self._turns.watched(fd, None)

    def has_next(self) -> bool:
        return super().has_next() or self._signal() is not None

    def has_letters(self) -> bool:
        """Whether somebody has sent something: what wakes an actor that rests."""
        return bool(self._urgent or self._queue)

    def has_descriptors(self) -> bool:
        """Whether it watches real ones."""
        return self._descriptors is not None

    def _next_due(self) -> Envelope[Any] | None:
        due = super()._next_due()
        if due is not None or not self._signals:
            return due
        self._has_sources = True
        fd = self._signal()
        if fd is None:
            return None
        self._queue_turn = True
        return Envelope(self._signals[fd])

    def _signal(self) -> int | None:
        signalled = self._turns.signalled
        return next((fd for fd in self._signals if fd in signalled), None)


@dataclass(slots=True, eq=False)
class _Seat:
    """An actor on its turn: not yet built, or waiting for its next message. Times are `Clock.monotonic()`.

    `ready_at` is when it has to be looked at again: before that it has nothing to do unless it is sent something.
    """

    factory: ActorFactory
    context: ActorContext
    mailbox: _SteppedMailbox
    tree: Stepper
    actor: StemActor | None = None
    ready_at: float = _SOON
    rests_until: float | None = None
    looks: Callable[[], bool] | None = None  # whether what it rests for is there
    held_until: float | None = None
    held: list[tuple[Mailbox, Envelope[Any]]] = field(default_factory=list)

    def is_ready(self, now: float) -> bool:
        """Whether it has something to do; if not, `ready_at` is when it will have, though nothing happens."""
        is_ready = self._is_ready(now)
        if not is_ready and not self.mailbox.has_descriptors():  # of which nobody says that they have become readable
            due = self._next_due()
            self.ready_at = _NEVER if due is None else due
        return is_ready

    def _is_ready(self, now: float) -> bool:
        if self.tree.is_frozen:
            return False
        if self.held_until is not None:
            return now >= self.held_until
        if self.actor is None:
            return True
        if self.rests_until is None or now >= self.rests_until:
            return self.mailbox.has_next()
        return self.mailbox.has_letters() or (self.looks is not None and self.looks())

    def _next_due(self) -> float | None:
        if self.tree.is_frozen:
            return None
        if self.held_until is not None:
            return self.held_until
        due = self.mailbox.next_due()
        if due is None or self.rests_until is None:
            return due
        return max(due, self.rests_until)


class Turns:
    """Whose turn it is: the actors of any number of trees, and what else was planned, by one clock and one seed.

    `seat` is the one whose turn it is now, `signalled` are the made-up descriptors (numbers below 0) that are readable, `steps`
    counts the turns taken so far.
    """

    def __init__(self, clock: SteppedClock, seed: int = 0) -> None:
        self.clock = clock
        self.steps = 0
        self.seat: _Seat | None = None
        self.signalled: set[int] = set()
        self._random = random.Random(seed)
        self._seats: list[_Seat] = []
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._watchers: dict[int, _Seat] = {}
        self._numbers = itertools.count()
        self._moment = (0.0, 0)

    # ------------------------------------------------------------ what is to come

    def plan(self, delay: float, action: Callable[[], None]) -> None:
        """Have `action` called in so many seconds of the clock, as a turn of its own."""
        heapq.heappush(self._plans, (self.clock.monotonic() + delay, next(self._numbers), action))

    def rest(self, seconds: float, looks: Callable[[], bool] | None = None) -> None:
        """The actor whose turn it is does nothing more for so long, unless it is sent something, or `looks()` says it is time."""
        if self.seat is not None:
            self.seat.rests_until, self.seat.looks = self.clock.monotonic() + seconds, looks

    def hold(self, seconds: float) -> None:
        """What the actor whose turn it is sends from now on leaves so much later, and till then it does nothing else."""
        if self.seat is not None:
            self.seat.held_until = max(self.seat.held_until or 0.0, self.clock.monotonic() + seconds)

    def signal(self, fd: int) -> None:
        """A made-up descriptor is readable from now on."""
        self.signalled.add(fd)
        if fd in self._watchers:
            self._watchers[fd].ready_at = _SOON

    def silence(self, fd: int) -> None:
        """It is not any more."""
        self.signalled.discard(fd)

    def watched(self, fd: int, seat: _Seat | None) -> None:
        """Who watches a made-up descriptor."""
        self._watchers.pop(fd, None)
        if seat is not None:
            self._watchers[fd] = seat

    def look_again(self, tree: Stepper) -> None:
        """The actors of `tree` may have something to do that they had not before, or the other way round."""
        for seat in self._seats:
            if seat.tree is tree:
                seat.ready_at = _SOON

    def take_in(self, seat: _Seat) -> None:
        self._seats.append(seat)

    def drop(self, tree: Stepper) -> None:
        """The actors of `tree` do nothing any more."""
        self._seats = [seat for seat in self._seats if seat.tree is not tree]

    # ------------------------------------------------------------ going on

    def step(self) -> bool:
        """Let one actor handle one message (or start), or one plan come true; False when nobody has anything to do now."""
        now = self.clock.monotonic()
        ready: list[_Seat | None] = [
            seat
            for seat in self._seats
            if (seat.ready_at <= now or (seat.looks is not None and seat.looks())) and seat.is_ready(now)
        ]
        if self._plans and self._plans[0][0] <= now:
            ready.append(None)
        if not ready:
            return False
        self._count(now)
        seat = ready[self._random.randrange(len(ready))]
        if seat is None:
            heapq.heappop(self._plans)[2]()
        elif seat.held_until is not None:
            self._release(seat)
        else:
            self.seat = seat
            try:
                self._take_turn(seat)
            finally:
                self.seat = None
                seat.ready_at = _SOON
        return True

    def next_due(self) -> float | None:
        """When there will be something to do after `step` has found nothing; None: never, if nothing happens."""
        due = min([seat.ready_at for seat in self._seats], default=_NEVER)
        if self._plans:
            due = min(due, self._plans[0][0])
        return None if due == _NEVER else due

    def run(self, seconds: float) -> None:
        """Do all there is to do for so many seconds of the clock, which moves from one thing to the next."""
        end = self.clock.monotonic() + seconds
        while True:
            while self.step():
                pass
            now = self.clock.monotonic()
            if now >= end:
                return
            due = self.next_due()
            self.clock.advance((end if due is None else min(due, end)) - now)

    def run_until(self, condition: Callable[[], bool], limit: float = 3600.0) -> bool:
        """Go on until `condition` holds; False when it does not within `limit` seconds of the clock, which moves as needed."""
        end = self.clock.monotonic() + limit
        while not condition():
            if self.step():
                continue
            now, due = self.clock.monotonic(), self.next_due()
            if due is None or due > end:
                return False
            self.clock.advance(due - now)
        return True

    def _take_turn(self, seat: _Seat) -> None:
        seat.rests_until = seat.looks = None
        if seat.actor is None:
            seat.actor = build(seat.factory, seat.context)
            if seat.actor is None:
                self._seats.remove(seat)
                return
            seat.actor.run_start()
        else:
            seat.actor.run_message(seat.mailbox.get())
        if seat.actor.has_ended and seat.held_until is None:
            self._end(seat)

    def _release(self, seat: _Seat) -> None:
        seat.held_until, seat.ready_at = None, _SOON
        held, seat.held = seat.held, []
        for mailbox, envelope in held:
            mailbox.put(envelope)
        if seat.actor is not None and seat.actor.has_ended:
            self._end(seat)

    def _end(self, seat: _Seat) -> None:
        self._seats.remove(seat)
        if seat.actor is not None:
            seat.actor.run_end()

    def _count(self, now: float) -> None:
        """Two actors that keep each other busy for ever would keep the clock from moving on."""
        self.steps += 1
        moment, turns = self._moment
        self._moment = (now, 1) if now != moment else (moment, turns + 1)
        if self._moment[1] > _LONGEST_MOMENT:
            busy = sorted({seat.context.name for seat in self._seats if seat.is_ready(now)})
            raise RuntimeError(f"{_LONGEST_MOMENT:,} turns at one moment of the clock: {', '.join(busy)} never come to rest")


class Stepper:
    """A supervision tree on one thread. Which of the actors that have something to do goes next is drawn from `seed`.

    Trees that share their `turns` share clock and seed, and are moved on together, by any of them.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        *,
        clock: SteppedClock | None = None,
        seed: int = 0,
        on_event: Callable[[Event], None] | None = None,
        name: str = "root",
        tick: float = 1.0,
        turns: Turns | None = None,
    ) -> None:
        if turns is None:
            assert clock is not None, "a stepper needs turns to share, or a clock for turns of its own"
            turns = Turns(clock, seed)
        self.turns = turns
        self.clock = turns.clock
        self.directory = Directory()
        self.reason: ExitReason | None = None
        """Why the root ended; None while it lives."""
        self.is_frozen = False
        self._is_killed = False
        self._life = Life(name, _SteppedMailbox(turns, name))
        self.directory.register(self._life)
        context = ActorContext(
            self.clock, self._life, self.directory, self, report=self._hear, random=random.Random(seed), on_event=on_event
        )
        self._root = Supervisor(context, children, strategy, on_event, tick=tick)
        self.launch(lambda _: self._root, context)

    def launch(self, factory: ActorFactory, context: ActorContext) -> None:
        """Give a new actor its turn; called by supervisors."""
        if self._is_killed:
            return
        mailbox = context.life.mailbox
        if not isinstance(mailbox, _SteppedMailbox):  # made for threads; nobody can have written to it yet
            mailbox = context.life.mailbox = _SteppedMailbox(self.turns, mailbox.name)
        mailbox.seat = seat = _Seat(factory, context, mailbox, self)
        self.turns.take_in(seat)

    def step(self) -> bool:
        """Let one actor handle one message (or start); False when none has anything to do at this moment."""
        return self.turns.step()

    def run(self, seconds: float) -> None:
        """Do all there is to do for so many seconds of the clock, which moves from timer to timer."""
        self.turns.run(seconds)

    def run_until(self, condition: Callable[[], bool], limit: float = 3600.0) -> bool:
        """Go on until `condition` holds; False when it does not within `limit` seconds of the clock, which moves as needed."""
        return self.turns.run_until(condition, limit)

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

    def begin_stop(self) -> None:
        """Ask the tree to stop in order; `reason` says when it has."""
        self._life.stop()

    def stop(self, limit: float = 3600.0) -> ExitReason | None:
        """Stop the tree in order; None when it did not end within `limit` seconds of the clock."""
        self.begin_stop()
        self.run_until(lambda: self.reason is not None, limit)
        return self.reason

    def freeze(self) -> None:
        """Like SIGSTOP: none of its actors does anything until `thaw`."""
        self.is_frozen = True
        self.turns.look_again(self)

    def thaw(self) -> None:
        """Like SIGCONT."""
        self.is_frozen = False
        self.turns.look_again(self)

    def kill(self) -> None:
        """Like SIGKILL: no actor does anything any more, and none of them notices."""
        self._is_killed = True
        self.turns.drop(self)

    def statistics(self) -> SupervisorStatistics:
        """How every child is, nested."""
        return self._root.statistics()

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
