"""File descriptors an actor watches beside its mailbox: one epoll, and the eventfd by which a sender wakes it.

Belongs to a mailbox, which decides when to poll; only `wake` is called from other threads.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque

__all__ = ["Descriptors"]

_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Descriptors:
    """What is watched, and which of it is ready. Level-triggered: a descriptor left unread is reported again."""

    __slots__ = ("_epoll", "_eventfd", "_readers", "_ready", "_writers")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._eventfd, select.EPOLLIN)
        self._readers: dict[int, object] = {}
        self._writers: dict[int, object] = {}
        self._ready: deque[tuple[int, bool]] = deque()

    def watch(self, fd: int, message: object, *, write: bool) -> None:
        """Have `message` come whenever `fd` is ready; a second call for the same direction replaces the message."""
        was_watched = fd in self._readers or fd in self._writers
        (self._writers if write else self._readers)[fd] = message
        try:
            if was_watched:
                try:
                    self._epoll.modify(fd, self._mask(fd))
                except FileNotFoundError:  # closed and opened again under the same number without an unwatch
                    self._epoll.register(fd, self._mask(fd))
            else:
                self._epoll.register(fd, self._mask(fd))
        except BaseException:
            (self._writers if write else self._readers).pop(fd, None)
            raise

    def unwatch(self, fd: int, *, write: bool | None = None) -> None:
        """Forget `fd`, or one direction of it. Of a descriptor that is closed or not watched: nothing to do."""
        if write is not False:
            self._writers.pop(fd, None)
        if write is not True:
            self._readers.pop(fd, None)
        with contextlib.suppress(OSError, ValueError):
            mask = self._mask(fd)
            if mask:
                self._epoll.modify(fd, mask)
            else:
                self._epoll.unregister(fd)

    def next_ready(self) -> tuple[object] | None:
        """The message of one descriptor found ready by the last `poll`, in a tuple of one since it may be anything."""
        while self._ready:
            fd, write = self._ready.popleft()
            watched = self._writers if write else self._readers
            if fd in watched:  # else: unwatched since
                return (watched[fd],)
        return None

    def poll(self, timeout: float | None) -> None:
        """Wait for a descriptor or a `wake`, at most `timeout` seconds; None for as long as it takes."""
        for fd, event in self._epoll.poll(timeout):
            if fd == self._eventfd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
                continue
            # An error or hang-up reaches whoever watches, in either direction: nobody else would take it off the list.
            if event & _READABLE and fd in self._readers:
                self._ready.append((fd, False))
            if event & _WRITABLE and fd in self._writers:
                self._ready.append((fd, True))

    def wake(self) -> None:
        """End a `poll` from another thread."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._eventfd, 1)

    def close(self) -> None:
        """Give up the epoll and the eventfd; the descriptors watched stay open, they are their owner's."""
        self._readers.clear()
        self._writers.clear()
        self._ready.clear()
        self._epoll.close()
        os.close(self._eventfd)

    def __len__(self) -> int:
        return len(self._readers) + len(self._writers)

    def has_ready(self) -> bool:
        """Whether the last `poll` found something that is still watched."""
        return any(fd in (self._writers if write else self._readers) for fd, write in self._ready)

    def _mask(self, fd: int) -> int:
        mask = 0
        if fd in self._readers:
            mask |= select.EPOLLIN | select.EPOLLRDHUP
        if fd in self._writers:
            mask |= select.EPOLLOUT
        return mask
