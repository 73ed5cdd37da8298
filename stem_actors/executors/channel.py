"""The executor's end of its two pipes: frames from the worker, claims, reports to the worker.

Owns what was handed over and not yet claimed, and the interrupts that arrived: `interrupts` those not raised yet, `cancelled`
the claims whose run counts for nothing any more. For the executor's main thread alone, but for
`send` and `ask`, which a task's own threads use too.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack

from stem_actors.executors.frames import Frame, FromExecutor, Handed, InterruptKind, ToExecutor

__all__ = ["Channel", "PipesClosed", "WorkerGone"]

_READ_BYTES = 262_144
_ONE_WAIT = 0.1  # seconds after which a thread looks again whether it may read itself


class WorkerGone(Exception):
    """The worker closed its ends or died: nothing more to do here."""


class PipesClosed(WorkerGone):
    """What a run came to cannot be reported. If the worker lives, the task has closed its executor's descriptors."""


class Channel:
    """Reads what the worker wrote, in the order it was written."""

    def __init__(self, sock: socket.socket, claims_fd: int) -> None:
        self.sock = sock
        self.claims_fd = claims_fd
        self.waiting: deque[Handed] = deque()
        self.interrupts: dict[int, tuple[InterruptKind, str | None]] = {}
        self.cancelled: set[int] = set()
        self.is_stopping = False
        self._generation = 0
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
        self._sending = threading.Lock()
        self._pack = msgpack.Packer(datetime=True).pack
        self._asked = itertools.count(1)
        self._replies: dict[int, tuple[Any, Any] | None] = {}  # by number; None: not here yet
        self._replied = threading.Condition()

    def claim(self) -> Handed:
        """Take the next task that was not taken back; waits for one. Raises `WorkerGone` when there will be none."""
        while not self.waiting:
            self._read_or_leave()
        byte = os.read(self.claims_fd, 1)
        return self._claimed(byte)

    def try_claim(self) -> Handed | None:
        """The next task if there is one right now. Its pipe must not block (`os.set_blocking(claims_fd, False)`)."""
        try:
            byte = os.read(self.claims_fd, 1)
        except BlockingIOError:
            return None
        return self._claimed(byte)

    def read(self, block: bool) -> None:
        """Take in the frames that have arrived; with `block`, wait for at least some bytes when there are none.

        Raises:
            WorkerGone: the other end is closed.
        """
        had_frames = self._take_all()
        if not (block and had_frames):
            self._receive(block)
            self._take_all()

    def _receive(self, block: bool) -> None:
        try:
            data = self.sock.recv(_READ_BYTES, 0 if block else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise WorkerGone from error
        if not data:
            raise WorkerGone
        self._unpacker.feed(data)

    def _take_all(self) -> bool:
        count = 0
        while self._take_next():
            count += 1
        return count > 0

    def _take_next(self) -> bool:
        """Take in one frame; False when none is complete."""
        for frame in self._unpacker:
            self._take(frame)
            return True
        return False

    def send(self, kind: FromExecutor, *parts: Any) -> None:
        """Report to the worker; in the kernel's hands when this returns, so that a death after it loses nothing."""
        try:
            with self._sending:
                self.sock.sendall(self._pack((int(kind), *parts)))
        except OSError as error:
            raise PipesClosed from error

    def ask(self, timeout: float, read_some: Callable[[float], bool], *parts: Any) -> tuple[Any, Any] | None:
        """Send an errand and wait for its reply: error and answer; None when it does not come in time.

        From any thread. `read_some(seconds)` waits so long for something to read, and reads it; False at once where this thread
        may not read, and another does.
        """
        number = next(self._asked)
        self._replies[number] = None
        end = time.monotonic() + timeout
        try:
            self.send(FromExecutor.ERRAND, number, *parts)
            while self._replies[number] is None and (left := end - time.monotonic()) > 0:
                if not read_some(min(left, _ONE_WAIT)):
                    with self._replied:
                        self._replied.wait_for(lambda: self._replies[number] is not None, min(left, _ONE_WAIT))
            return self._replies[number]
        finally:
            del self._replies[number]

    def forget(self, claim: int) -> None:
        """A claim has ended: what was heard about it is over."""
        self.interrupts.pop(claim, None)
        self.cancelled.discard(claim)

    def forget_others(self, *running: int) -> None:
        """Drop what came too late: about claims that neither run nor wait."""
        if self.interrupts or self.cancelled:
            known = {*running, *(handed.claim for handed in self.waiting)}
            self.interrupts = {claim: interrupt for claim, interrupt in self.interrupts.items() if claim in known}
            self.cancelled &= known

    def close(self) -> None:
        self.sock.close()
        os.close(self.claims_fd)

    def _claimed(self, byte: bytes) -> Handed:
        if not byte:
            raise WorkerGone
        # Frame by frame, to the byte's own: behind it may stand that the worker has taken back what followed, and more.
        while self._generation != byte[0] or not self.waiting:
            if not self._take_next():
                self._receive(block=True)
        return self.waiting.popleft()

    def _read_or_leave(self) -> None:
        if self.is_stopping:
            raise WorkerGone
        self.read(block=True)

    def _take(self, frame: Frame) -> None:
        match frame:
            case [ToExecutor.RUN, tasks]:
                self.waiting.extend(Handed._make(task) for task in tasks)
            case [ToExecutor.FORGET, generation]:
                self.waiting.clear()
                self._generation = generation
            case [ToExecutor.INTERRUPT, claim, kind, reason]:
                self.interrupts[claim] = (InterruptKind(kind), reason)
                if kind == InterruptKind.REVOKED:
                    self.cancelled.add(claim)
            case [ToExecutor.STOP]:
                self.is_stopping = True
            case [ToExecutor.REPLY, number, error, answer]:
                with self._replied:
                    if number in self._replies:  # else nobody waits any more
                        self._replies[number] = error, answer
                        self._replied.notify_all()
            case _:
                raise WorkerGone
