"""How processes on one file wake each other: datagrams to sockets in a directory beside it. Hints only, the file is the truth.

Who waits binds a socket there *before* it looks into the file; who writes commits *before* it looks into the directory. So
either the waiter sees the write, or the writer sees the waiter. A socket's name begins with what its owner waits for. Sockets
whose owner died refuse the datagram and are removed by whoever notices.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stem_actors.adapters.interrupt import Interrupt

__all__ = ["Inbox", "Wakeup", "topic"]

LONGEST_PATH = 100  # of a socket, bytes; the system's limit is 104 to 108
POLL_INTERVAL = 0.25  # looking into the file, where no socket can be bound
FRESH_NS = 100_000_000  # a directory listed so soon after its last change may have changed again within the same time stamp


def topic(kind: str, namespace: str) -> str:
    """What a waiter waits for, as the beginning of a file name; short, as a socket's path must be.

    Two namespaces with the same digest only wake each other in vain.
    """
    return kind[0] + hashlib.sha256(namespace.encode()).hexdigest()[:8]


class Wakeup:
    """The directory of one file. Any thread."""

    def __init__(self, database: Path) -> None:
        self._directory = _directory_for(database)
        self._sender: socket.socket | None = None
        self._lock = threading.Lock()
        self._spare: dict[str, Inbox] = {}
        self._listing: list[str] = []
        self._listed_change: int | None = None

    def open_inbox(self, topic: str) -> Inbox:
        """A socket that hears `notify(topic)` from now on."""
        return Inbox(self._directory, topic)

    @contextmanager
    def listening(self, topic: str) -> Iterator[Inbox]:
        """An inbox for the time of a block; one is kept for the next block with the same topic."""
        with self._lock:
            inbox = self._spare.pop(topic, None)
        if inbox is None:
            inbox = self.open_inbox(topic)
        try:
            yield inbox
        finally:
            with self._lock:
                kept = self._spare.setdefault(topic, inbox)
            if kept is not inbox:
                inbox.close()

    def notify(self, topic: str) -> None:
        """Wake whoever listens to `topic`, in any process. Never blocks, never fails."""
        prefix = f"{topic}."
        for name in self._names():
            if name.startswith(prefix):
                self._send(os.path.join(self._directory, name))

    def close(self) -> None:
        with self._lock:
            closable: list[Inbox | socket.socket] = list(self._spare.values())
            if self._sender is not None:
                closable.append(self._sender)
            self._spare, self._sender = {}, None
        for each in closable:
            each.close()
        try:
            os.rmdir(self._directory)
        except OSError:
            pass  # others listen, or nobody ever did

    def _names(self) -> list[str]:
        try:
            change = os.stat(self._directory).st_mtime_ns
            if change != self._listed_change:
                names = os.listdir(self._directory)
                settled = time.time_ns() - change > FRESH_NS
                self._listing, self._listed_change = names, change if settled else None
                return names
        except OSError:
            return []  # nobody has waited yet
        return self._listing

    def _send(self, path: str) -> None:
        with self._lock:
            if self._sender is None:
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sender = self._sender
        try:
            sender.sendto(b"!", path)
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(path)  # its owner is dead
        except OSError:
            pass  # full: it has been told already


class Inbox:
    """One waiter's socket. `wait` and `drain` are for one thread; `interrupts` end a wait."""

    def __init__(self, directory: str, topic: str) -> None:
        self._path = os.path.join(directory, f"{topic}.{uuid.uuid4().hex[:12]}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.interrupts = Interrupt()
        self._poll = select.poll()
        self._poll.register(self.interrupts, select.POLLIN)
        self._is_bound = self._bind(directory)

    def _bind(self, directory: str) -> bool:
        for _ in range(10):
            try:
                os.makedirs(directory, exist_ok=True)
                self._socket.bind(self._path)
            except FileNotFoundError:
                continue  # somebody who left last has just removed the directory
            except OSError:
                break  # no sockets on this file system: we look again and again instead
            self._poll.register(self._socket, select.POLLIN)
            return True
        return False

    def wait(self, timeout: float) -> bool:
        """Wait for a notification or an interrupt; True when it is worth while to look again before `timeout` has passed."""
        if timeout <= 0:
            return False
        patience = timeout if self._is_bound else min(timeout, POLL_INTERVAL)
        is_told = bool(self._poll.poll(max(1, round(patience * 1000))))
        return is_told or patience < timeout

    def drain(self) -> None:
        """Forget earlier notifications; call before looking into the file."""
        if self._is_bound:
            try:
                while True:
                    self._socket.recv(16)
            except OSError:
                pass  # empty

    def close(self) -> None:
        """Idempotent; not while another thread waits."""
        if self._is_bound:
            _remove(self._path)
        self._socket.close()
        self.interrupts.close()


def _directory_for(database: Path) -> str:
    beside = f"{database.resolve()}-wake"
    longest = len(os.fsencode(beside)) + 48  # a topic and a name
    if longest <= LONGEST_PATH:
        return beside
    digest = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"stem-wake-{digest}")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
