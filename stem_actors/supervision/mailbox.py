"""The mailbox of one actor: its messages, its timers and the file descriptors it watches, in one place to wait.

Many threads put, one thread (the owner) does everything else. Putting takes no lock unless the message counts against
the bound, and getting takes none at all: under the interpreter's lock `deque.append` and `popleft` are atomic, and the
one race (a message put while its owner lies down) is closed by order: the owner says that it waits and *then* looks
again, a sender puts and *then* looks whether somebody waits.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pykka import ActorDeadError
from pykka._envelope import Envelope  # what ActorRef.tell wraps every message in; pykka has no public name for it
from pykka.messages import _ActorStop

from stem_actors.clock import Clock
from stem_actors.errors import StemError
from stem_actors.supervision.descriptors import Descriptors
from stem_actors.supervision.timers import Timer, Timers

__all__ = ["DEFAULT_BOUND", "Data", "Kill", "Mailbox", "MailboxFull", "Timer"]

DEFAULT_BOUND = 10_000
"""Data messages a mailbox holds unless its actor's class says otherwise."""

_POLL_EVERY = 32
"""A busy owner looks at its descriptors once in so many messages: a system call each time would cost more than it finds."""

_logger = logging.getLogger("stem.supervision")
M = TypeVar("M")


class Data:
    """Base of messages that count against the bound of a mailbox. Everything else is control and always gets in."""

    __slots__ = ()


class MailboxFull(StemError):
    """A data message found no room. It was not put; its sender holds it, releases it or counts it as lost."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Makes the actor that gets it crash, as if its handler had raised. Jumps the queue."""


_URGENT = frozenset({_ActorStop, Kill})


class Mailbox:
    """Bounded for data, open for control; a stop jumps the queue.

    What comes next is taken in turns: a due timer or a ready descriptor, then a queued message, so that neither
    starves the other. `put`, `wake`, `close` and `depth` may be called from any thread, the rest by the owner.
    """

    def __init__(self, clock: Clock, name: str = "", bound: int = DEFAULT_BOUND) -> None:
        self.name = name
        self.bound = bound
        self.is_closed = False
        self._clock = clock
        self._queue: deque[Envelope[Any]] = deque()
        self._urgent: deque[Envelope[Any]] = deque()
        self._data_put = 0  # written by senders under the lock
        self._data_got = 0  # written by the owner
        self._lock = threading.Lock()
        self._notify: Callable[[], None] | None = None  # what a sender calls after it has put
        self._token = threading.Lock()  # held; released once to wake an owner that waits without descriptors
        self._token.acquire()
        self._timers = Timers()
        self._descriptors: Descriptors | None = None
        self._since_poll = 0
        self._has_sources = False  # timers or descriptors: keeps both off the path of an actor without
        self._queue_turn = False

    # Senders ----------------------------------------------------------------------------------------------------

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message and wake the owner. Never waits.

        Raises:
            MailboxFull: it is `Data` and as many are waiting as the bound allows.
        """
        message = envelope.message
        if isinstance(message, Data):
            with self._lock:
                if self._data_put - self._data_got >= self.bound:
                    raise MailboxFull(
                        f"mailbox of {self.name!r} holds {self.bound} data messages; {type(message).__name__} was not put. "
                        "Hold it back until the actor has caught up, or raise its mailbox_bound."
                    )
                self._data_put += 1
                self._queue.append(envelope)
        elif type(message) in _URGENT:
            self._urgent.append(envelope)
        else:
            self._queue.append(envelope)
        notify = self._notify
        if notify is not None:
            notify()
        if self.is_closed:
            self._refuse_rest()

    def depth(self) -> int:
        """How many messages wait, timers and descriptors not counted."""
        return len(self._queue) + len(self._urgent)

    def close(self) -> None:
        """Refuse all that waits and all that comes: who asked gets `ActorDeadError`, what was told is dropped."""
        self.is_closed = True
        self._refuse_rest()
        with self._lock:  # a sender must not write to an eventfd whose number is somebody else's by now
            descriptors, self._descriptors = self._descriptors, None
            self._timers.clear()
            if descriptors is not None:
                descriptors.close()

    # The owner --------------------------------------------------------------------------------------------------

    def get(self) -> Envelope[Any]:
        """The next message, waiting for it if there is none."""
        if self._urgent:
            return self._urgent.popleft()
        if self._has_sources:
            if self._queue_turn:
                self._queue_turn = False
            else:
                due = self._next_due()
                if due is not None:
                    return due
        try:
            envelope = self._queue.popleft()
        except IndexError:
            return self._wait()
        if isinstance(envelope.message, Data):
            self._data_got += 1
        return envelope

    def take(self, type_: type[M], limit: int) -> list[M]:
        """Remove up to `limit` further messages that stand at the front and are exactly of `type_`.

        Stops at the first other one, at one that somebody asked (it wants its own reply), and yields nothing when a stop waits.
        """
        queue = self._queue
        taken: list[M] = []
        while len(taken) < limit and queue and not self._urgent:
            envelope = queue[0]
            if type(envelope.message) is not type_ or envelope.reply_to is not None:
                break
            taken.append(queue.popleft().message)
        if taken and isinstance(taken[0], Data):
            self._data_got += len(taken)
        return taken

    def empty(self) -> bool:
        """Whether no message waits, timers and descriptors not counted."""
        return not self._queue and not self._urgent

    def after(self, seconds: float, message: object) -> Timer:
        """Have `message` come in `seconds` by the clock; it goes ahead of what is queued then."""
        self._has_sources = True
        return self._timers.add(self._clock.monotonic() + max(0.0, seconds), message)

    def watch(self, fd: int, message: object, *, write: bool = False) -> None:
        """Have `message` come whenever `fd` is readable (or writable), again and again while it stays so.

        It may also come once when there is nothing to read after all: use descriptors that do not block.
        """
        if self._descriptors is None:
            self._descriptors = Descriptors()
        self._descriptors.watch(fd, message, write=write)
        self._has_sources = True

    def unwatch(self, fd: int, *, write: bool | None = None) -> None:
        """Stop watching `fd`, both ways unless `write` names one. Do so before closing it."""
        if self._descriptors is not None:
            self._descriptors.unwatch(fd, write=write)

    @contextlib.contextmanager
    def interruptible(self, wake: Callable[[], None]) -> Iterator[None]:
        """While inside, whatever is put also calls `wake()`, from the thread that puts; at once if something waits already.

        `wake` may be called several times, never after the block has ended, and must neither block nor put into this
        mailbox. Timers and descriptors do not call it: bound the wait by `next_due`.
        """
        guard = threading.Lock()
        inside = True

        def interrupt() -> None:
            with guard:
                if inside:
                    try:
                        wake()
                    except Exception:  # the sender must not suffer from it
                        _logger.exception("could not interrupt the handler of %r", self.name)

        self._notify = interrupt
        try:
            if not self.empty():
                interrupt()
            yield
        finally:
            self._notify = None
            with guard:
                inside = False

    def next_due(self) -> float | None:
        """When the next timer is due, by the clock's `monotonic()`; None without timers."""
        return self._timers.next_due()

    def has_next(self) -> bool:
        """Whether `get` would return at once. Looks at the descriptors too."""
        if self._urgent or self._queue:
            return True
        due = self._timers.next_due()
        if due is not None and due <= self._clock.monotonic():
            return True
        if self._descriptors is None:
            return False
        if not self._descriptors.has_ready():
            self._descriptors.poll(0)
        return self._descriptors.has_ready()

    # Inside -----------------------------------------------------------------------------------------------------

    def _next_due(self) -> Envelope[Any] | None:
        """A due timer's or a ready descriptor's message; looks for new readiness only once in a while."""
        due = self._timers.next_due()
        if due is not None and due <= self._clock.monotonic():
            self._queue_turn = True
            return Envelope(self._timers.pop())
        descriptors = self._descriptors
        if descriptors is not None:
            ready = descriptors.next_ready()
            if ready is None:
                self._since_poll += 1
                if self._since_poll >= _POLL_EVERY:
                    self._since_poll = 0
                    descriptors.poll(0)
                    ready = descriptors.next_ready()
            if ready is not None:
                self._queue_turn = True
                return Envelope(ready[0])
        elif due is None:
            self._has_sources = False
        return None

    def _wait(self) -> Envelope[Any]:
        while True:
            if self._has_sources:
                due = self._next_due()
                if due is not None:
                    return due
            self._notify = self._wake  # before looking again: see the module's docstring
            if self._urgent:
                self._notify = None
                return self._urgent.popleft()
            if self._queue:
                self._notify = None
                envelope = self._queue.popleft()
                if isinstance(envelope.message, Data):
                    self._data_got += 1
                return envelope
            next_due = self._timers.next_due()
            timeout = None if next_due is None else max(0.0, next_due - self._clock.monotonic())
            descriptors = self._descriptors
            if descriptors is not None:
                descriptors.poll(timeout)
                self._since_poll = 0
            else:
                self._token.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
            self._notify = None

    def _wake(self) -> None:
        """Wake the owner; the first sender does, the flag is down for those behind it."""
        self._notify = None
        if self._descriptors is None:
            with contextlib.suppress(RuntimeError):  # two senders at once: one release is enough
                self._token.release()
        else:
            with self._lock:
                if self._descriptors is not None:
                    self._descriptors.wake()

    def _refuse_rest(self) -> None:
        """Empty a closed mailbox. Any thread, several at once: each envelope is popped by one."""
        for waiting in (self._urgent, self._queue):
            while True:
                try:
                    envelope = waiting.popleft()
                except IndexError:
                    break
                if envelope.reply_to is None:
                    continue
                if type(envelope.message) is _ActorStop:
                    envelope.reply_to.set(None)
                else:
                    error = ActorDeadError(f"{self.name!r} ended before it got to this message")
                    envelope.reply_to.set_exception((ActorDeadError, error, None))
