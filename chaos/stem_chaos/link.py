"""The link between a cluster and its broker: a TCP proxy that cuts, resets, swallows, delays and slows down what passes.

One thread does everything to the sockets, none of which ever blocks it; the methods are for any thread, and what they ask for has
been done when they return.
"""

from __future__ import annotations

import contextlib
import queue
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

__all__ = ["Address", "Proxy", "free_port"]

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a socket."""

_CHUNK = 1 << 16
_HELD_BYTES = 1 << 20
"""What one direction of a connection holds at most: a sender that is faster waits, as at a full network."""
_STRIDE = 0.02
"""Seconds' worth of bytes that pass at once when the link is slow."""
_PATIENCE = 10.0


@dataclass(slots=True, eq=False)
class _End:
    """One end of a connection through the proxy, and what waits to be written to it: when it may be, and the bytes."""

    sock: socket.socket
    is_server: bool
    waiting: deque[tuple[float, memoryview]] = field(default_factory=deque)
    held: int = 0
    is_connecting: bool = False
    has_ended: bool = False  # it will say nothing more
    mask: int = 0
    other: _End = field(init=False)


class Proxy:
    """Listens on a port of its own and passes bytes on to `target`, until told otherwise."""

    def __init__(self, target: Address) -> None:
        self._target = _resolved(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._ends: set[_End] = set()
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._wake, self._waker = socket.socketpair()
        self._refuses = self._is_deaf = self._drops_answers = self._is_closed = False
        self._latency = 0.0
        self._bytes_per_second: float | None = None
        self._free_at = 0.0  # when the next byte may pass a slow link
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="stem-chaos-link", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ faults

    def reset(self) -> None:
        """Reset every connection; new ones are taken."""
        self._order(self._drop_all)

    def cut(self) -> None:
        """Reset every connection, and each new one as soon as it is made."""

        def refuse() -> None:
            self._set(refuses=True)
            self._drop_all()

        self._order(refuse)

    def blackhole(self) -> None:
        """Pass nothing on in either direction, and close nothing: a cable pulled out."""
        self._order(lambda: self._set(is_deaf=True))

    def drop_answers(self) -> None:
        """Pass on what clients say; when the server answers, reset the connection in place of passing that on."""
        self._order(lambda: self._set(drops_answers=True))

    def delay(self, seconds: float) -> None:
        """Let everything arrive so much later, in order."""
        self._order(lambda: self._set(latency=seconds))

    def throttle(self, bytes_per_second: float) -> None:
        """Let so many bytes pass, all connections and both directions together."""
        self._order(lambda: self._set(bytes_per_second=bytes_per_second))

    def retarget(self, target: Address) -> None:
        """Lead to another server from now on; connections to the old one are reset."""
        resolved = _resolved(target)

        def turn() -> None:
            self._target = resolved
            self._drop_all()

        self._order(turn)

    def heal(self) -> None:
        """Pass everything on again; what was held back arrives."""
        self._order(self._set)

    def close(self) -> None:
        def end() -> None:
            self._is_closed = True

        if not self._is_closed:
            self._order(end)
        self._thread.join(_PATIENCE)

    # ------------------------------------------------------------ the thread

    def _order(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._orders.put((action, done))
        with contextlib.suppress(OSError):  # told to close, it may have done so by now
            self._waker.send(b"!")
        done.result(_PATIENCE)

    def _set(
        self,
        refuses: bool = False,
        is_deaf: bool = False,
        drops_answers: bool = False,
        latency: float = 0.0,
        bytes_per_second: float | None = None,
    ) -> None:
        """How it behaves from now on: one fault at a time, or none."""
        self._refuses, self._is_deaf, self._drops_answers = refuses, is_deaf, drops_answers
        self._latency, self._bytes_per_second = latency, bytes_per_second
        self._free_at = 0.0

    def _run(self) -> None:
        while not self._is_closed:
            for key, mask in self._selector.select(self._until_something_is_due()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                else:
                    self._serve(key.data, mask)
            self._obey()
            for end in list(self._ends):
                self._watch(end)
        self._drop_all()
        for each in (self._listener, self._wake, self._waker):
            each.close()
        self._selector.close()

    def _obey(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                action, done = self._orders.get_nowait()
                action()
                done.set_result(None)

    def _until_something_is_due(self) -> float | None:
        """Seconds until a byte may be written that waits for its time, not for its socket; None when there is none."""
        if self._is_deaf:
            return None
        is_early = (end for end in self._ends if end.waiting and not end.mask & selectors.EVENT_WRITE)
        due = min((max(end.waiting[0][0], self._free_at) for end in is_early), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _watch(self, end: _End) -> None:
        """Ask the selector for exactly what can be done now: what is readable but unwanted would keep us busy."""
        mask = 0
        if end.is_connecting:
            mask = selectors.EVENT_WRITE
        elif not self._is_deaf:
            if not end.has_ended and end.other.held < _HELD_BYTES:
                mask |= selectors.EVENT_READ
            if end.waiting and max(end.waiting[0][0], self._free_at) <= time.monotonic():
                mask |= selectors.EVENT_WRITE
        if mask == end.mask:
            return
        if not end.mask:
            self._selector.register(end.sock, mask, end)
        elif mask:
            self._selector.modify(end.sock, mask, end)
        else:
            self._selector.unregister(end.sock)
        end.mask = mask

    # ------------------------------------------------------------ connections

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # it has given up already
        if self._refuses:
            _reset(accepted)
            return
        family, address = self._target
        try:
            connecting = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            _reset(accepted)
            return
        client, server = _End(accepted, is_server=False), _End(connecting, is_server=True, is_connecting=True)
        client.other, server.other = server, client
        self._ends |= {client, server}
        for end in (client, server):
            end.sock.setblocking(False)
            if end.sock.family != socket.AF_UNIX:
                end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            connecting.connect(address)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _serve(self, end: _End, mask: int) -> None:
        if end not in self._ends:
            return  # dropped a moment ago
        try:
            if end.is_connecting:
                error = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error)
                end.is_connecting = False
                return
            if mask & selectors.EVENT_READ:
                self._read(end)
            if mask & selectors.EVENT_WRITE:
                self._write(end)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(end)
            return
        if any(each.has_ended and not each.other.waiting for each in (end, end.other)):
            self._drop(end, politely=True)

    def _read(self, end: _End) -> None:
        data = end.sock.recv(_CHUNK)
        if data and end.is_server and self._drops_answers:
            raise ConnectionResetError
        if not data:
            end.has_ended = True
            return
        end.other.waiting.append((time.monotonic() + self._latency, memoryview(data)))
        end.other.held += len(data)
        if not self._latency and self._bytes_per_second is None and not end.other.is_connecting:
            self._write(end.other)  # most often there is room, and one round through the selector less

    def _write(self, end: _End) -> None:
        while end.waiting:
            due, data = end.waiting[0]
            now = time.monotonic()
            if max(due, self._free_at) > now:
                return
            rate = self._bytes_per_second
            try:
                written = end.sock.send(data if rate is None else data[: max(1, int(rate * _STRIDE))])
            except BlockingIOError:
                return
            if rate is not None:
                self._free_at = now + written / rate
            end.held -= written
            if written == len(data):
                end.waiting.popleft()
            else:
                end.waiting[0] = due, data[written:]

    def _drop_all(self) -> None:
        for end in list(self._ends):
            self._drop(end)

    def _drop(self, end: _End, politely: bool = False) -> None:
        """Close a connection at both ends: by a reset, or by an end that lets what was written arrive."""
        for each in (end, end.other):
            if each in self._ends:
                self._ends.discard(each)
                if each.mask:
                    self._selector.unregister(each.sock)
                if politely:
                    each.sock.close()
                else:
                    _reset(each.sock)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _resolved(target: Address) -> tuple[socket.AddressFamily, tuple[str, int] | str]:
    """Look a host up here and now, so that the proxy's thread never does."""
    if isinstance(target, str):
        return socket.AF_UNIX, target
    family, _, _, _, address = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)[0]
    return family, (str(address[0]), int(address[1]))


def free_port() -> int:
    """A port that nobody listens on, and that no connection will be given: a server that restarts has to find it free again.

    The kernel takes the ports of connections from a range of its own. Somebody who tries again and again to reach a port in
    there while nobody listens on it ends up connected to himself.
    """
    lowest_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, max(20_000, lowest_given_out))  # not what a run has seeded
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
