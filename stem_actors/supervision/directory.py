"""Who lives under which child id, in one supervision tree: names outlive the actors that bear them.

Owns the `Life` of each child (from its launch to its exit) and the table of those that have the right to their name.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pykka import Future, ThreadingFuture
from pykka._envelope import Envelope  # what ActorRef.tell wraps every message in; pykka has no public name for it
from pykka.messages import _ActorStop

from stem_actors.errors import StemError
from stem_actors.supervision.mailbox import Kill, Mailbox

if TYPE_CHECKING:
    from stem_actors.supervision.base import StemActor

__all__ = ["ChildGone", "Directory", "DuplicateChild", "Life"]


class DuplicateChild(StemError):
    """Two children of one tree were to bear the same id."""


class ChildGone(StemError):
    """Nobody bears this child id now, or its bearer ended before it replied."""


class Life:
    """One life of one child, shared by its actor (which writes) and its supervisor (which looks at it).

    Plain attributes, read without a lock: a supervisor wants to know whether they move, not what they are exactly.
    """

    __slots__ = ("actor", "child_id", "generation", "handled", "handler", "has_ended", "mailbox", "parent", "thread")

    def __init__(self, child_id: str, mailbox: Mailbox, *, generation: int = 1, parent: str | None = None) -> None:
        self.child_id = child_id
        self.mailbox = mailbox
        self.generation = generation
        """1 for the first life of this child under its supervisor, and one more after each restart."""
        self.parent = parent
        self.actor: StemActor | None = None
        self.thread: threading.Thread | None = None
        self.handled = 0
        """Messages handled so far, failed ones included."""
        self.handler: str | type | None = None
        """What runs now: the message's class, or "on_start", "on_stop", "on_failure"; None while it waits."""
        self.has_ended = False
        """Set after the exit was reported."""

    def has_vanished(self) -> bool:
        """Whether its thread is gone without a report."""
        thread = self.thread
        return thread is not None and thread.ident is not None and not thread.is_alive() and not self.has_ended

    def handler_name(self) -> str:
        """What runs now, for people."""
        handler = self.handler
        return handler.__name__ if isinstance(handler, type) else handler or "idle"

    def stop(self) -> None:
        """Ask it to stop ahead of everything that waits in its mailbox. Any thread; does not wait."""
        self.mailbox.put(Envelope(_ActorStop()))


class Directory:
    """Child id -> current life, for a whole tree. Every method may be called from any thread, also outside actors."""

    def __init__(self) -> None:
        self._lives: dict[str, Life] = {}
        self._lock = threading.Lock()

    def tell(self, child_id: str, message: object) -> bool:
        """Send `message` to whoever is `child_id` now. False when nobody is; True does not promise that it gets handled.

        Raises:
            MailboxFull: it is `Data` and the mailbox is at its bound.
        """
        life = self._lives.get(child_id)
        if life is None:
            return False
        life.mailbox.put(Envelope(message))
        return True

    def ask(self, child_id: str, message: object) -> Future[Any]:
        """Send `message` and return the future of its reply. For commands and tests: an actor never waits for another.

        The future raises what the handler raises, or pykka's `ActorDeadError` when the actor ended before it came to it.

        Raises:
            ChildGone: nobody is `child_id` now.
            MailboxFull: it is `Data` and the mailbox is at its bound.
        """
        life = self._lives.get(child_id)
        if life is None:
            raise ChildGone(f"no child {child_id!r} is alive; it may be between two lives, so ask again, or check the id")
        reply: Future[Any] = ThreadingFuture()
        life.mailbox.put(Envelope(message, reply_to=reply))
        return reply

    def kill(self, child_id: str) -> bool:
        """Make `child_id` crash as if its handler had raised (a process child gets SIGKILL). False when nobody is it."""
        return self.tell(child_id, Kill())

    def is_alive(self, child_id: str) -> bool:
        """Whether somebody is `child_id` now, perhaps still starting."""
        return child_id in self._lives

    def ids(self) -> frozenset[str]:
        """Who lives now."""
        with self._lock:
            return frozenset(self._lives)

    # For supervisors and actors ---------------------------------------------------------------------------------

    def register(self, life: Life) -> None:
        """Give `life` the right to its name.

        Raises:
            DuplicateChild: somebody bears the name.
        """
        with self._lock:
            if self._lives.setdefault(life.child_id, life) is not life:
                raise DuplicateChild(f"child id {life.child_id!r} is taken; ids are unique in the whole tree, so choose another")

    def remove(self, life: Life) -> None:
        """Take the name from `life`, if it still has it."""
        with self._lock:
            if self._lives.get(life.child_id) is life:
                del self._lives[life.child_id]

    def abandon(self, life: Life) -> None:
        """Give up a life that cannot be ended, and all below it: they lose their names and end when they come to look."""
        self.remove(life)
        life.stop()
        with self._lock:
            children = [other for other in self._lives.values() if other.parent == life.child_id]
        for child in children:
            self.abandon(child)
