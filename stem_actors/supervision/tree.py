"""A whole supervision tree in threads, and the handle by which the rest of the process holds it.

Owns the root supervisor's life. The process itself (signals, exit code) belongs to whoever calls `start_tree`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pykka

from stem_actors.clock import Clock, SystemClock
from stem_actors.supervision.child import ChildSpec, Strategy
from stem_actors.supervision.context import ActorContext, Exited, Report, Started, ThreadRuntime
from stem_actors.supervision.directory import ChildGone, Directory, Life
from stem_actors.supervision.events import Event, SupervisorStatistics
from stem_actors.supervision.mailbox import Mailbox
from stem_actors.supervision.reasons import ExitReason, Vanished
from stem_actors.supervision.supervisor import Supervisor

__all__ = ["Tree", "start_tree"]

_LOOK = 1.0  # how often a waiting caller makes sure that the root's thread is still there


class Tree:
    """Handle of a running tree, from `start_tree`. Every method may be called from any thread that is not one of its actors."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        strategy: Strategy,
        clock: Clock,
        on_event: Callable[[Event], None] | None,
        name: str,
        tick: float,
    ) -> None:
        self.directory = Directory()
        self._changed = threading.Condition()
        self._has_started = False
        self._reason: ExitReason | None = None
        self._life = Life(name, Mailbox(clock, name))
        self.directory.register(self._life)
        runtime = ThreadRuntime()
        context = ActorContext(clock, self._life, self.directory, runtime, report=self._hear, on_event=on_event)
        self._root = root = Supervisor(context, children, strategy, on_event, tick=tick)
        runtime.launch(lambda _: root, context)

    def tell(self, child_id: str, message: object) -> bool:
        """Send to whoever is `child_id` now; False when nobody is. See `Directory.tell`."""
        return self.directory.tell(child_id, message)

    def ask(self, child_id: str, message: object, timeout: float) -> Any:
        """Send and wait for the reply.

        Raises:
            ChildGone: nobody is `child_id` now, or it ended before it came to the message.
            TimeoutError: no reply within `timeout` seconds; the message may still be handled.
            Exception: whatever the handler raised, which has ended the actor.
        """
        try:
            return self.directory.ask(child_id, message).get(timeout=timeout)
        except pykka.ActorDeadError as error:
            raise ChildGone(f"child {child_id!r} ended before it came to {type(message).__name__}; ask its successor") from error
        except pykka.Timeout as error:
            raise TimeoutError(f"child {child_id!r} did not reply to {type(message).__name__} within {timeout} s") from error

    def stop(self, timeout: float | None = None) -> ExitReason | None:
        """Stop all children in reverse order and wait for the end. None when that took longer than `timeout` seconds.

        `Stuck` means that a thread is left which nothing can end: leave the process.
        """
        self._life.stop()
        return self.wait(timeout)

    def request_stop(self) -> None:
        """As `stop`, without waiting. Takes no lock, so a signal handler may call it."""
        self._life.stop()

    def wait(self, timeout: float | None = None) -> ExitReason | None:
        """Wait until the tree has ended and say why; None when it has not within `timeout` seconds."""
        self._wait_for(lambda: self._reason is not None, timeout)
        return self._reason

    def wait_started(self, timeout: float | None = None) -> bool:
        """Wait until every child has started; False when the tree ended or `timeout` seconds passed before."""
        self._wait_for(lambda: self._has_started or self._reason is not None, timeout)
        return self._has_started and self._reason is None

    @property
    def moves(self) -> int:
        """How many messages the root has handled: grows with each of its ticks, unless it is stuck."""
        return self._life.handled

    def statistics(self) -> SupervisorStatistics:
        """How every child is, nested. Asks nobody, so it also works while an actor is stuck."""
        return self._root.statistics()

    def _wait_for(self, condition: Callable[[], bool], timeout: float | None) -> None:
        # Waiting is a thing between this thread and the operating system: the tree's clock may be anything.
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not condition():
                remaining = _LOOK if deadline is None else deadline - time.monotonic()
                if remaining <= 0:
                    return
                self._changed.wait(min(remaining, _LOOK))
                if self._life.has_vanished():
                    self._reason = self._reason or Vanished()

    def _hear(self, report: Report) -> None:
        with self._changed:
            match report:
                case Started():
                    self._has_started = True
                case Exited():
                    self._reason = report.reason
            self._changed.notify_all()


def start_tree(
    children: Sequence[ChildSpec],
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    *,
    clock: Clock | None = None,
    on_event: Callable[[Event], None] | None = None,
    name: str = "root",
    tick: float = 1.0,
) -> Tree:
    """Start a tree of threads and return at once; `wait_started` waits for its children.

    `clock` must run by itself, since threads wait for their timers by the operating system's time; for a clock that is
    advanced by hand there is `Stepper`. All threads are daemons: when the caller's main thread returns, they are gone.

    Raises:
        DuplicateChild: an id occurs twice in the tree.
    """
    return Tree(children, strategy, clock or SystemClock(), on_event, name, tick)
