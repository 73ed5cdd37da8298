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
            self._turns.place(self.seat)

    def watch(self, fd: int, message: object, *, write: bool = False) -> None:
        if fd >= 0:
            super().watch(fd, message, write=write)
            self._turns.polled(self.seat)
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

    def has_letters(self) -> bool:
        """Whether somebody has sent something: what wakes an actor that rests."""
        return bool(self._urgent or self._queue)

    def next_at(self) -> float:
        """When `get` has something to return, though nothing happens: `_SOON` if it has by now."""
        if self._urgent or self._queue or (self._signals and self._signal() is not None):
            return _SOON
        if self._descriptors is not None and self.has_next():
            return _SOON
        due = self._timers.next_due()
        return _NEVER if due is None else due

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
        return next((fd for fd in self._signals if fd in signalled), None) if signalled else None


@dataclass(slots=True, eq=False)
class _Seat:
    """An actor on its turn: not yet built, or waiting for its next message. Times are `Clock.monotonic()`.

    `is_listed`  it stands among those who have something to do
    `due_at`     when it is looked at again, though nothing happens to it
    `is_over`    it takes no turn any more
    """

    factory: ActorFactory
    context: ActorContext
    mailbox: _SteppedMailbox
    tree: Stepper
    actor: StemActor | None = None
    is_listed: bool = False
    due_at: float = _NEVER
    is_over: bool = False
    rests_until: float | None = None
    rests_for: Callable[[], float | None] | None = None
    held_until: float | None = None
    held: list[tuple[Mailbox, Envelope[Any]]] = field(default_factory=list)

    def next_at(self) -> float:
        """When it has something to do, though nothing happens."""
        if self.tree.is_frozen or self.is_over:
            return _NEVER
        if self.held_until is not None:
            return self.held_until
        if self.actor is None:
            return _SOON
        at = self.mailbox.next_at()
        if self.rests_until is None or self.mailbox.has_letters():
            return at
        there = None if self.rests_for is None else self.rests_for()
        return max(self.rests_until if there is None else min(there, self.rests_until), at)


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
        self._draw = random.Random(seed).random
        self._seats: list[_Seat] = []
        self._ready: list[_Seat] = []  # those who have something to do, and some who had
        self._due: list[tuple[float, int, _Seat]] = []  # when others will, by time; all but a seat's `due_at` are out of date
        self._polled: list[_Seat] = []  # those who watch real descriptors, of which nobody says that they have become readable
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._watchers: dict[int, _Seat] = {}
        self._numbers = itertools.count()
        self._now = clock.monotonic()  # as of the last step
        self._moment, self._turns_in_it = 0.0, 0

    # ------------------------------------------------------------ what is to come

    def plan(self, delay: float, action: Callable[[], None]) -> None:
        """Have `action` called in so many seconds of the clock, as a turn of its own."""
        heapq.heappush(self._plans, (self.clock.monotonic() + delay, next(self._numbers), action))

    def rest(self, seconds: float, there: Callable[[], float | None] | None = None) -> None:
        """The actor whose turn it is does nothing more for so long, unless it is sent something, or what it rests for is there.

        `there` says when that is, by `Clock.monotonic()`; None: not by itself. It is asked again at each `news`.
        """
        if self.seat is not None:
            self.seat.rests_until, self.seat.rests_for = self.clock.monotonic() + seconds, there

    def news(self) -> None:
        """What somebody rests for may be there now."""
        for seat in self._seats:
            if seat.rests_for is not None:
                self.place(seat)

    def hold(self, seconds: float) -> None:
        """What the actor whose turn it is sends from now on leaves so much later, and till then it does nothing else."""
        if self.seat is not None:
            self.seat.held_until = max(self.seat.held_until or 0.0, self.clock.monotonic() + seconds)

    def signal(self, fd: int) -> None:
        """A made-up descriptor is readable from now on."""
        self.signalled.add(fd)
        if fd in self._watchers:
            self.place(self._watchers[fd])

    def silence(self, fd: int) -> None:
        """It is not any more."""
        self.signalled.discard(fd)

    def watched(self, fd: int, seat: _Seat | None) -> None:
        """Who watches a made-up descriptor."""
        self._watchers.pop(fd, None)
        if seat is not None:
            self._watchers[fd] = seat

    def polled(self, seat: _Seat | None) -> None:
        """Who watches a real one."""
        if seat is not None and seat not in self._polled:
            self._polled.append(seat)

    def take_in(self, seat: _Seat) -> None:
        """Somebody new."""
        self._seats.append(seat)
        self.place(seat)

    def go_on(self, tree: Stepper) -> None:
        """The actors of `tree` stood still, and do so no more."""
        for seat in self._seats:
            if seat.tree is tree:
                self.place(seat)

    def drop(self, tree: Stepper) -> None:
        """The actors of `tree` do nothing any more."""
        for seat in [seat for seat in self._seats if seat.tree is tree]:
            self._leave(seat)

    def place(self, seat: _Seat) -> None:
        """Something has happened to `seat`: put it among those who have something to do, if it has, or who will have."""
        if seat.is_listed:
            return
        at = seat.next_at()
        if at <= self._now:  # what has become due since then, `step` finds
            seat.is_listed = True
            self._ready.append(seat)
        elif at != seat.due_at:
            seat.due_at = at
            if at != _NEVER:
                heapq.heappush(self._due, (at, next(self._numbers), seat))

    def _leave(self, seat: _Seat) -> None:
        seat.is_over = True
        self._seats.remove(seat)
        if seat in self._polled:
            self._polled.remove(seat)

    # ------------------------------------------------------------ going on

    def step(self) -> bool:
        """Let one actor handle one message (or start), or one plan come true; False when nobody has anything to do now."""
        now = self._now = self.clock.monotonic()
        due, ready, plans = self._due, self._ready, self._plans
        while due and due[0][0] <= now:
            at, _, seat = heapq.heappop(due)
            if at == seat.due_at:
                seat.due_at = _NEVER
                self.place(seat)
        for seat in self._polled:
            self.place(seat)
        planned = 1 if plans and plans[0][0] <= now else 0
        while ready:
            number = len(ready)
            drawn = int(self._draw() * (number + planned)) if number + planned > 1 else 0
            if drawn == number:
                break
            seat, ready[drawn] = ready[drawn], ready[-1]
            ready.pop()
            seat.is_listed = False
            if seat.next_at() <= now:
                self._count(now)
                self._take_turn(seat)
                self.place(seat)
                return True
            self.place(seat)  # it had something to do, and has no more
        if planned:
            self._count(now)
            heapq.heappop(plans)[2]()
        return bool(planned)

    def next_due(self) -> float | None:
        """When there will be something to do after `step` has found nothing; None: never, if nothing happens."""
        while self._due and self._due[0][0] != self._due[0][2].due_at:
            heapq.heappop(self._due)
        due = min(self._due[0][0] if self._due else _NEVER, self._plans[0][0] if self._plans else _NEVER)
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
        if seat.held_until is not None:
            self._release(seat)
        else:
            seat.rests_until = seat.rests_for = None
            self.seat = seat
            try:
                self._act(seat)
            finally:
                self.seat = None
        if seat.actor is not None and seat.actor.has_ended and seat.held_until is None and not seat.is_over:
            self._leave(seat)
            seat.actor.run_end()

    def _act(self, seat: _Seat) -> None:
        if seat.actor is not None:
            seat.actor.run_message(seat.mailbox.get())
            return
        seat.actor = build(seat.factory, seat.context)
        if seat.actor is None:
            self._leave(seat)
        else:
            seat.actor.run_start()

    def _release(self, seat: _Seat) -> None:
        seat.held_until = None
        held, seat.held = seat.held, []
        for mailbox, envelope in held:
            mailbox.put(envelope)

    def _count(self, now: float) -> None:
        """Two actors that keep each other busy for ever would keep the clock from moving on."""
        self.steps += 1
        if now != self._moment:
            self._moment, self._turns_in_it = now, 0
        self._turns_in_it += 1
        if self._turns_in_it > _LONGEST_MOMENT:
            busy = sorted({seat.context.name for seat in self._seats if seat.next_at() <= now})
            raise RuntimeError(f"{_LONGEST_MOMENT:,} turns at one moment of the clock: {', '.join(busy)} never come to rest")


class Stepper:
    """A supervision tree on one thread. Which of the actors that have something to do goes next is drawn from `seed`.

    Trees that share their `turns` share clock and seed, and are moved on together, by any of them.
    """

    can_hang = False

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        *,
        clock: SteppedClock | None = None,
        seed: int = 0,
        on_event: Callable[[Event], None] | None = None,
        name: str = "root",
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
        self._root = Supervisor(context, children, strategy, on_event)
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

    def thaw(self) -> None:
        """Like SIGCONT."""
        self.is_frozen = False
        self.turns.go_on(self)

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
