"""A process as a child: an actor that starts it, waits on its pidfd and ends it.

Owns one process for one life. What the process says (a hello, frames on a pipe) is the business of whoever starts it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeAlias

from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import Start
from stem_actors.supervision.context import ActorContext
from stem_actors.supervision.reasons import ExitedWith, ExitReason, Killed, Normal, Shutdown

__all__ = ["ProcessHandle", "ProcessKeeper", "process"]

_REAP = 5.0
"""Seconds the kernel gets to end a process after SIGKILL; one in a disk wait may need longer, and counts as stuck."""


class ProcessHandle(Protocol):
    """A child process of ours, not yet waited for by anybody else."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Reap it if it has ended: its exit code, or minus the signal; None while it runs."""
        ...

    def request_stop(self) -> None:
        """Ask it to end, politely and without waiting; SIGKILL follows at the stop deadline."""
        ...


@dataclass(frozen=True, slots=True)
class _Ended:
    """The pidfd is readable."""


@dataclass(frozen=True, slots=True)
class _StopOverdue:
    """It did not end on request."""


_Message: TypeAlias = _Ended | _StopOverdue


class ProcessKeeper(StemActor):
    """Keeps one process: it lives as long as the process does, and not shorter.

    Owns: the process and its pidfd.      Receives: nothing from others.
    """

    def __init__(self, context: ActorContext, start: Callable[[], ProcessHandle]) -> None:
        super().__init__(context)
        self._start = start
        self._handle: ProcessHandle | None = None
        self._pidfd = -1
        self._is_stopping = False

    @property
    def pid(self) -> int | None:
        """The process id; None before it is started."""
        return None if self._handle is None else self._handle.pid

    def on_start(self) -> None:
        self._handle = self._start()
        self._pidfd = os.pidfd_open(self._handle.pid)
        self.watch(self._pidfd, _Ended())

    def on_receive(self, message: _Message) -> None:
        match message:
            case _Ended():
                self._look()
            case _StopOverdue():
                self._kill()

    def stop_requested(self) -> None:
        self._is_stopping = True
        if self._handle is None:
            self.end_with(Shutdown())
            return
        with contextlib.suppress(ProcessLookupError):
            self._handle.request_stop()
        self.after(self.context.stop_deadline, _StopOverdue())

    def kill_requested(self) -> None:
        self._kill()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave no process behind that nobody keeps."""
        if self._handle is None or self._handle.poll() is not None:
            return
        if self._pidfd < 0:
            os.kill(self._handle.pid, signal.SIGKILL)
            return
        self._kill()
        select.select([self._pidfd], [], [], _REAP)
        self._handle.poll()

    def run_end(self) -> None:
        if self._pidfd >= 0:
            self.unwatch(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        super().run_end()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _look(self) -> None:
        code = None if self._handle is None else self._handle.poll()
        if code is not None:  # else: somebody else is just reaping it; the pidfd stays readable
            self.end_with(_reason(code, is_stopping=self._is_stopping))


def process(start: Callable[[], ProcessHandle]) -> Start:
    """A child that is a process: `process(lambda: open_executor(...))`.

    `start` runs in a thread of the child's own, within the start deadline, and anew for every life. A stop is first asked
    for politely; at the stop deadline SIGKILL follows.
    """
    return Start(lambda context: ProcessKeeper(context, start), stop_allowance=_REAP)


def _reason(code: int, *, is_stopping: bool) -> ExitReason:
    if code == 0:
        return Shutdown() if is_stopping else Normal()
    if code < 0:
        polite = is_stopping and -code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        return Shutdown() if polite else Killed(-code)
    return ExitedWith(code)
