"""StemActor: pykka's actor with its rough edges levelled.

Owns the loop around a handler: how messages come, how errors end an actor and who hears of it. Pykka gives the threads'
refs and futures; its loop is replaced, because there an error in an ask is survived, one in the start calls no hook, a
stop waits behind the backlog, and a SystemExit in one handler stops every actor of the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import pykka
from pykka._envelope import Envelope  # what ActorRef.tell wraps every message in; pykka has no public name for it
from pykka.messages import _ActorStop

from stem_actors.supervision.context import ActorContext, Started, report_exit
from stem_actors.supervision.mailbox import DEFAULT_BOUND, Kill, Mailbox
from stem_actors.supervision.reasons import ExitReason, KilledByRequest, Normal, Shutdown, Vanished, reason_of
from stem_actors.supervision.timers import Timer

__all__ = ["ActorContext", "StemActor"]

_logger = logging.getLogger("stem.supervision")
M = TypeVar("M")


class StemActor(pykka.ThreadingActor):
    """One thread of state and its mailbox.

    Override `on_start`, `on_receive`, `on_stop` and, for what must be cleaned up after an error, `on_failure`; all run
    in the actor's own thread, and so does `__init__` under a supervisor. An exception in any of them, of any class, told
    or asked, ends this actor and no other, and its supervisor hears `Exited`. Proxies are not supported.
    """

    use_daemon_thread = True  # a stuck actor must not keep the process from exiting
    mailbox_bound: ClassVar[int] = DEFAULT_BOUND
    announces_itself: ClassVar[bool] = False
    """True for an actor whose start goes on after `on_start`: it calls `announce_started` when it is through."""

    def __init__(self, context: ActorContext) -> None:
        self.context = context
        self.clock = context.clock
        self.name = context.name
        self.mailbox = context.life.mailbox
        self.mailbox.bound = self.mailbox_bound
        super().__init__()
        self._life = context.life
        self._life.actor = self
        self._reason: ExitReason | None = None
        self._is_leaving = False
        self._stop_replies: list[pykka.Future[Any]] = []

    # Hooks ------------------------------------------------------------------------------------------------------

    def on_receive(self, message: Any) -> Any:
        """Handle one message; what it returns is the reply to an ask."""
        _logger.warning("%s %r has no use for a message of type %s", type(self).__name__, self.name, type(message).__name__)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clean up after an exception in any other hook, the start included. `on_stop` is not called then."""

    # Tools for handlers -----------------------------------------------------------------------------------------

    def tell(self, child_id: str, message: object) -> bool:
        """Send to whoever is `child_id` at this moment. False when nobody is: dead, between two lives, or never known.

        Raises:
            MailboxFull: it is `Data` and the mailbox is at its bound.
        """
        return self.context.directory.tell(child_id, message)

    def after(self, seconds: float, message: object) -> Timer:
        """Have `message` come to this actor in `seconds`, ahead of what is queued then."""
        return self.mailbox.after(seconds, message)

    def watch(self, fd: int, message: object, *, write: bool = False) -> None:
        """Have `message` come whenever `fd` is readable (or writable), again and again while it stays so.

        Unwatch before closing `fd`. The message may come once when there is nothing to read after all.
        """
        self.mailbox.watch(fd, message, write=write)

    def unwatch(self, fd: int, *, write: bool | None = None) -> None:
        """Stop watching `fd`, both ways unless `write` names one."""
        self.mailbox.unwatch(fd, write=write)

    def take(self, type_: type[M], limit: int) -> list[M]:
        """Up to `limit` further messages of exactly `type_` from the front of the mailbox: what piled up, for a batch."""
        return self.mailbox.take(type_, limit)

    def interruptible(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """While inside, whatever arrives also calls `wake()` from the sender's thread: for a handler that waits elsewhere.

        At once if something waits already. Timers and descriptors do not call it: wait no longer than `seconds_to_timer()`.
        """
        return self.mailbox.interruptible(wake)

    def seconds_to_timer(self) -> float | None:
        """How long until this actor's next timer is due, 0 when it is; None without timers."""
        due = self.mailbox.next_due()
        return None if due is None else max(0.0, due - self.clock.monotonic())

    def mailbox_depth(self) -> int:
        """How many messages wait."""
        return self.mailbox.depth()

    def stop(self) -> None:
        """End after this handler, with reason `Normal`; what waits in the mailbox is dropped."""
        self._is_leaving = True
        self._life.stop()

    def announce_started(self) -> None:
        """Tell the supervisor that the start is through. Called for all but those with `announces_itself`."""
        self.context.report(Started(self.name, self._life.generation))

    # What subclasses of the kernel refine -----------------------------------------------------------------------

    def stop_requested(self) -> None:
        """A stop has come. Runs `on_stop` and ends; a supervisor stops its children first."""
        self._life.handler = "on_stop"
        self.on_stop()
        self.end_with(Normal() if self._is_leaving else Shutdown())

    def kill_requested(self) -> None:
        """`Directory.kill` was called."""
        raise KilledByRequest("killed by request")

    def end_by_error(self, error: BaseException) -> None:
        """An exception left a hook or handler."""
        reason = reason_of(error)
        handler, self._life.handler = self._life.handler_name(), "on_failure"
        try:
            _logger.error(
                "%s %r crashed in %s: %s",
                type(self).__name__,
                self.name,
                handler,
                reason.type,
                exc_info=error,
                extra={"child_id": self.name, "handler": handler, "reason": reason.label, "error": reason.type},
            )
            self.on_failure(type(error), error, error.__traceback__)
        except BaseException:
            _logger.exception("%s %r crashed again while it cleaned up", type(self).__name__, self.name)
        finally:
            self.end_with(reason)

    def end_with(self, reason: ExitReason) -> None:
        """Leave the loop with `reason`; the first one counts."""
        if self._reason is None:
            self._reason = reason

    # The loop: also driven step by step by the stepper -----------------------------------------------------------

    def run_start(self) -> None:
        """Run the start."""
        self._life.handler = "on_start"
        try:
            self.on_start()
            if not self.announces_itself:
                self.announce_started()
        except BaseException as error:
            self.end_by_error(error)
        self._life.handler = None

    def run_message(self, envelope: Envelope[Any]) -> None:
        """Handle one message; no exception leaves it."""
        message = envelope.message
        life = self._life
        life.handler = type(message)
        try:
            reply = self.on_receive(message) if type(message) not in _SYSTEM else self._handle_system(envelope)
        except BaseException as error:
            if envelope.reply_to is not None and type(message) is not _ActorStop:
                envelope.reply_to.set_exception((type(error), error, error.__traceback__))
            self.end_by_error(error)
        else:
            if envelope.reply_to is not None and type(message) is not _ActorStop:
                envelope.reply_to.set(reply)
        life.handler = None
        life.handled += 1

    @property
    def has_ended(self) -> bool:
        """Whether the loop is left; only `run_end` remains."""
        return self._reason is not None

    def run_end(self) -> None:
        """Give up name, mailbox and ref, and report the exit."""
        life = self._life
        self.actor_stopped.set()
        self.context.directory.remove(life)
        life.mailbox.close()
        pykka.ActorRegistry.unregister(self.actor_ref)
        for reply in self._stop_replies:
            reply.set(None)
        report_exit(self.context, self._reason or Vanished())

    def run(self) -> None:
        """Live, in the current thread."""
        self._life.thread = threading.current_thread()
        try:
            self.run_start()
            get, handle = self.mailbox.get, self.run_message
            while self._reason is None:
                handle(get())
        finally:
            self.run_end()

    def _actor_loop(self) -> None:
        self.run()

    def _handle_system(self, envelope: Envelope[Any]) -> Any:
        if type(envelope.message) is Kill:
            self.kill_requested()
        else:
            if envelope.reply_to is not None:
                self._stop_replies.append(envelope.reply_to)
            self.stop_requested()

    def _create_actor_inbox(self) -> Mailbox:  # type: ignore[override]  # static in pykka, but called on the instance
        return self.context.life.mailbox


_SYSTEM = frozenset({_ActorStop, Kill})
