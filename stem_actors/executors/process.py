"""The worker's side of one executor process: its pipes, its pidfd, its end. Nothing here blocks.

Owns what was handed to this executor and has no outcome yet, in the order of the claims; so it also knows, whenever the
executor dies, which claims were started and which were not. Whose claim it was, and what follows, is the pool's business.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import msgpack

from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.child import INTERRUPT_SIGNAL, PIPES_CLOSED, Codec, Shape, main
from stem_actors.executors.frames import ENDED, Frame, Handed, InterruptKind, ToExecutor, next_generation

__all__ = ["ExecutorProcess", "launch"]

_READ_BYTES = 65_536  # small enough for the allocator to keep: a megabyte is mapped and unmapped at every read
_SEND_BUFFER = 1_048_576
_LARGEST_FRAME = 64 * 1_048_576


@dataclass(slots=True, eq=False)
class ExecutorProcess:
    """One executor, from its start to its reaping. For one thread at a time; identity is the object.

    `handed`            claims without an outcome, oldest first: those it has claimed, then those it has not
    `has_closed_pipes`  it lived on when nothing could come from it any more, and was killed for that
    """

    process: BaseProcess
    sock: socket.socket
    claims_writer: int
    claims_reader: int
    pidfd: int
    handed: dict[int, None] = field(default_factory=dict)
    has_closed_pipes: bool = False
    _generation: int = 0
    _outgoing: bytearray = field(default_factory=bytearray)
    _bytes_after_outgoing: int = 0
    _unpacker: msgpack.Unpacker = field(
        default_factory=lambda: msgpack.Unpacker(strict_map_key=False, use_list=True, max_buffer_size=_LARGEST_FRAME)
    )
    _pack: Any = field(default_factory=lambda: msgpack.Packer(datetime=True).pack)
    _is_closed: bool = False

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert pid is not None, "only started processes get here"
        return pid

    # ------------------------------------------------------------ work

    def hand(self, tasks: Sequence[Handed]) -> None:
        """Hand tasks over: to the socket first, then a byte each to the claim pipe."""
        for task in tasks:
            self.handed[task.claim] = None
        self._write(ToExecutor.RUN, tasks)
        self._bytes_after_outgoing += len(tasks)
        self._flush_claims()

    def take_back(self) -> list[int]:
        """Take back whatever it has not claimed; these claims will not run here. The oldest first."""
        count = self._bytes_after_outgoing
        self._bytes_after_outgoing = 0
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.claims_reader, 65_536):
                count += len(chunk)
        if count == 0:
            return []
        taken = list(self.handed)[-count:]
        for claim in taken:
            del self.handed[claim]
        self._generation = next_generation(self._generation)
        with contextlib.suppress(OSError):  # it died: nothing to forget
            self._write(ToExecutor.FORGET, self._generation)
        return taken

    def receive(self) -> Iterable[Frame]:
        """The frames of one read, none when nothing has arrived.

        Raises:
            EOFError: the stream is closed, or was garbled by whoever else wrote to it.
        """
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return ()
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return self._frames(data)

    def drain(self) -> Iterable[Frame]:
        """What a dead executor had still reported, to the end of its stream."""
        frames: list[Frame] = []
        with contextlib.suppress(OSError):  # would block: a grandchild keeps the other end open
            while data := self.sock.recv(_READ_BYTES):
                frames += self._frames(data)
        return frames

    def interrupt(self, claim: int, kind: InterruptKind, reason: str | None = None) -> None:
        """Stop the run of one claim, wherever it is. May be repeated; the executor acts on the first only."""
        with contextlib.suppress(OSError):
            self._write(ToExecutor.INTERRUPT, claim, int(kind), reason)
        self.nudge()

    def nudge(self) -> None:
        """Make it look for interrupts; repeated until the run has ended, since it looks only while user code runs."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, INTERRUPT_SIGNAL)

    def reply(self, number: int, error: Sequence[str] | None, answer: bytes) -> None:
        """Answer an errand."""
        with contextlib.suppress(OSError):
            self._write(ToExecutor.REPLY, number, error, answer)

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait for the socket to take more."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it; then the claims that belong to it."""
        while self._outgoing:
            try:
                sent = self.sock.send(self._outgoing)
            except BlockingIOError:
                return
            del self._outgoing[:sent]
        self._flush_claims()

    # ------------------------------------------------------------ end

    def request_stop(self) -> None:
        """Let it leave when nothing runs."""
        with contextlib.suppress(OSError):
            self._write(ToExecutor.STOP)
        if self.claims_writer >= 0:
            os.close(self.claims_writer)  # an executor that waits for a claim sees the end of the pipe
            self.claims_writer = -1

    def kill(self) -> None:
        """End it and what its tasks started: the group while its leader lives. What then is left, `kill_session` finds."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not self.has_exited():
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)  # before its setsid() it is in our own group

    def has_exited(self) -> bool:
        """By the pidfd, which nothing else can make readable."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def cause_of_death(self) -> str:
        """`signal 9 (SIGKILL)`, `exit code 3`, or that nobody knows: after its forkserver died there is no one to ask.

        Where it had closed its pipes, that too: the number alone would lead astray.
        """
        code = self.process.exitcode
        if code is None or code == 255:
            return "unknown (its forkserver is gone)" if code == 255 else "unknown"
        if code == PIPES_CLOSED or (code == -signal.SIGKILL and self.has_closed_pipes):
            ending = "signal 9 (SIGKILL)" if code < 0 else f"exit code {code}"
            return f"{ending}, since the task had closed its executor's connection to the worker"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {-code} ({signal.Signals(-code).name})"
            return f"signal {-code}"
        return f"exit code {code}"

    def close(self) -> None:
        """Give up the pipes and the pidfd. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.sock.close()
        for fd in (self.claims_writer, self.claims_reader, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.claims_writer = self.claims_reader = self.pidfd = -1

    # ------------------------------------------------------------ reading and writing

    def _frames(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker:
                if frame[0] == ENDED:
                    self.handed.pop(frame[1], None)
                frames.append(frame)
        except (ValueError, TypeError, IndexError, msgpack.UnpackException):
            self.sock.shutdown(socket.SHUT_RD)  # garbled: the next read finds its end
        return frames

    def _write(self, kind: ToExecutor, *parts: Any) -> None:
        self._outgoing += self._pack((int(kind), *parts))
        try:
            self.flush()
        except (BrokenPipeError, ConnectionResetError):
            self._outgoing.clear()  # it is dead; its pidfd says so too, and what was handed over is judged then

    def _flush_claims(self) -> None:
        if self._outgoing or not self._bytes_after_outgoing or self.claims_writer < 0:
            return
        count, self._bytes_after_outgoing = self._bytes_after_outgoing, 0
        with contextlib.suppress(BrokenPipeError):
            os.write(self.claims_writer, bytes([self._generation]) * count)


def launch(
    context: BaseContext,
    source: ApplicationSource,
    codec: Codec,
    name: str,
    parent_pid: int | None,
    logging: tuple[str, str],
    shape: Shape,
) -> ExecutorProcess:
    """Start an executor process. Blocks until it is forked; call it from the worker's main thread only.

    `parent_pid`: see `child.main`; known for `spawn`, where the worker itself is the parent. `logging`: level and format.
    """
    ours, theirs = socket.socketpair()
    reader, writer = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # every context has it, typeshed's base has not
        target=main, args=(theirs, reader, parent_pid, source, codec, logging, shape), name=name, daemon=False
    )
    try:
        process.start()
    except BaseException:
        ours.close()
        writer.close()
        raise
    finally:
        theirs.close()
    assert process.pid is not None
    pidfd = os.pidfd_open(process.pid)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    claims_writer = os.dup(writer.fileno())
    claims_reader = _own_reading_end(reader)
    writer.close()
    return ExecutorProcess(process, ours, claims_writer, claims_reader, pidfd)


def _own_reading_end(reader: Connection) -> int:
    """A reading end that does not block. O_NONBLOCK belongs to the open file, so ours must be another than the executor's."""
    fd = os.open(f"/proc/self/fd/{reader.fileno()}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    reader.close()
    return fd
