"""Executors that are threads of the program itself (`pool="inline"`): for tests, notebooks and programs that want one process.

The same pool talks the same frames to them over the same pipes; only what is at the other end differs, and that nobody can
kill it. So these do not hold: hard time limits are not enforced, a task that kills its process takes the program along, one that
holds the interpreter holds up the renewal of leases, and a thread that hears no interrupt is abandoned and goes on, its outcome
dropped.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import socket
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any, cast

from stem_actors.executors.application import Application
from stem_actors.executors.async_child import AsyncExecutor
from stem_actors.executors.channel import Channel, WorkerGone
from stem_actors.executors.child import Codec, Executor
from stem_actors.executors.frames import FromExecutor
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.threaded_child import ThreadedExecutor

__all__ = ["InlineLauncher", "InlineProcess"]

_logger = logging.getLogger("stem.executors")

_NO_PID = -1  # so that nothing that is done to an executor's process or session can hit this one


class InlineLauncher:
    """Starts executors in threads; for a worker what `ExecutorLauncher` is. Any thread may call it."""

    def __init__(self, application: Application, codec: Codec, name: str, threads: int, wake: Callable[[], None]) -> None:
        self._application = application
        self._codec = codec
        self._name = name
        self._threads = threads
        self._wake = wake
        self._tickets = itertools.count(1)
        self._requests: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._started: list[InlineProcess] = []

    def prepare(self) -> None:
        """There is nothing to prepare."""

    def launch(self, slot: int) -> int:
        """Ask for an executor; whoever runs `launch_next` is woken to start it."""
        ticket = next(self._tickets)
        self._requests.put((slot, ticket))
        self._wake()
        return ticket

    def launch_next(self) -> tuple[int, int, ExecutorProcess | str] | None:
        """Start the executor that was asked for next: slot, ticket, and the executor. None: nothing to do."""
        try:
            slot, ticket = self._requests.get_nowait()
        except queue.Empty:
            return None
        process = _start(self._application, self._codec, f"{self._name}/{slot}", self._threads)
        self._started.append(process)
        return slot, ticket, process

    def reap_all(self, timeout: float) -> bool:
        """Abandon every executor started so far. They cannot be made to end, so they count as dead."""
        started, self._started = self._started, []
        for process in started:
            process.kill()
            process.close()
        return True


class _End:
    """Says by a descriptor that becomes readable, like a pidfd, that an executor has ended. Closed by the worker's side alone."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._is_closed = False

    def reach(self) -> None:
        with self._lock:
            if not self._is_closed:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self.fd)


class _NoProcess:
    """What stands in for the process of an executor that has none."""

    pid = _NO_PID
    exitcode = 0


@dataclass(slots=True, eq=False)
class InlineProcess(ExecutorProcess):
    """The worker's side of an executor that is a thread."""

    end: _End = field(default_factory=_End)

    def nudge(self) -> None:
        """Not needed: the thread that serves its channel is never in user code."""

    def kill(self) -> None:
        """Abandon it: it hears no more of us, and the worker no more of it."""
        if not self._is_closed:
            self.end.reach()

    def cause_of_death(self) -> str:
        return "unknown (its thread has ended)"

    def close(self) -> None:
        if not self._is_closed:
            self.pidfd = -1
            super(InlineProcess, self).close()
            self.end.close()


def _start(application: Application, codec: Codec, name: str, threads: int) -> InlineProcess:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    claims_reader = os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    ours.setblocking(False)
    end = _End()
    process = InlineProcess(cast(BaseProcess, _NoProcess()), ours, writer, claims_reader, end.fd, end=end)
    serve = _Server(Channel(theirs, reader), application, codec, threads, end)
    threading.Thread(target=serve.run, name=f"stem-inline {name}", daemon=True).start()
    return process


class _Server:
    """The thread at the other end."""

    def __init__(self, channel: Channel, application: Application, codec: Codec, threads: int, end: _End) -> None:
        self._channel = channel
        self._application = application
        self._codec = codec
        self._threads = threads
        self._end = end

    def run(self) -> None:
        try:
            executor = _InlineExecutor(self._channel, self._application, self._codec, self._threads)
            self._channel.send(FromExecutor.READY, self._application.catalogue)
            executor.run()
        except WorkerGone:
            pass
        except BaseException:
            _logger.error("an inline executor ends:\n%s", traceback.format_exc())
        finally:
            self._end.reach()
            self._channel.close()


class _InlineExecutor(Executor):
    """Claims in a thread of its own. Sync tasks run in further threads, one by one unless there are to be more at once."""

    def settle_in(self) -> None:
        """Signals, and what a fork does, are the program's own business."""

    def run(self) -> None:
        while (run := self.prepare(self._channel.claim())) is None:
            pass
        parts = self._channel, self.prepare, self.report, self.leave_if_copy
        if run.task.is_async:
            self._serves_many = True
            self._loop = AsyncExecutor(*parts)
            self._loop.run(run)
        else:
            self._serves_many = True
            self._threaded = _InlineThreads(parts[0], self._threads, *parts[1:])
            self._threaded.run(run)


class _InlineThreads(ThreadedExecutor):
    """Threads that end with their executor, and never the program."""

    def run(self, first: Any) -> None:
        try:
            super().run(first)
        finally:
            for _ in range(self._threads):
                self._claimed.put(cast(Any, None))

    def _serve(self) -> None:
        try:
            while (claimed := cast(Any, self._claimed.get())) is not None:
                self._run_one(*claimed)
        except WorkerGone:
            pass
