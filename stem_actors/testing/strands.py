"""Strands: threads that run user code in lockstep with whoever resumes them, so that it can wait in the middle of a function.

Never do two run at once: a strand runs while its driver waits for it, and the driver runs while the strand waits. So a program of
many strands does the same thing each time. Threads are used again, also by later simulations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["ExecutorDeath", "SimulationOver", "Strand", "current_strand"]


class ExecutorDeath(BaseException):
    """Raised in a simulated task, it is the death of its executor: nothing of the run is reported.

    `cause` says how, in the words of a worker: `signal 11 (SIGSEGV)`, `exit code 3`.
    """

    def __init__(self, cause: str = "signal 9 (SIGKILL)") -> None:
        super().__init__(cause)
        self.cause = cause


class SimulationOver(BaseException):
    """Unwinds what still waits when a simulation is closed."""


class Strand:
    """One function on its way, from `begin` until `is_done`. Made and resumed by the driver; `wait` is called from inside.

    `owner` is whatever the driver wants to know again when code inside asks for the current strand.
    """

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.is_done = False
        self._thread: _Thread | None = None
        self._error: BaseException | None = None
        self._is_over = False

    def begin(self, function: Callable[[], None]) -> None:
        """Run `function` until it waits or ends. It must not raise."""
        self._thread = _idle.pop() if _idle else _Thread()
        self._thread.work = self, function
        self._switch()

    def resume(self, error: BaseException | None = None) -> None:
        """Go on where it waits, with an exception if one is given; until it waits again or ends."""
        self._error = error
        self._switch()

    def wait(self) -> None:
        """Let the driver go on; returns when resumed."""
        if self._is_over:
            raise SimulationOver
        assert self._thread is not None
        self._thread.hand_back()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def unwind(self) -> None:
        """End it where it waits. One that goes on waiting regardless is left behind."""
        self._is_over = True
        if not self.is_done:
            self.resume(SimulationOver())

    def _switch(self) -> None:
        thread = self._thread
        assert thread is not None
        thread.run_on()
        if self.is_done:
            self._thread = None
            _idle.append(thread)


class _Thread:
    """A thread that does one piece of work after the other."""

    def __init__(self) -> None:
        self.work: tuple[Strand, Callable[[], None]] | None = None
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        threading.Thread(target=self._live, name="stem-strand", daemon=True).start()

    def run_on(self) -> None:
        """For the driver: let it run until it hands back."""
        self._go.release()
        self._back.acquire()

    def hand_back(self) -> None:
        """For the thread: let the driver run until it is resumed."""
        self._back.release()
        self._go.acquire()

    def _live(self) -> None:
        self._go.acquire()
        while True:
            assert self.work is not None
            strand, function = self.work
            _here.strand = strand
            try:
                function()
            finally:
                strand.is_done = True
                _here.strand = self.work = None
                del strand, function
                self.hand_back()


class _Here(threading.local):
    strand: Strand | None = None


_here = _Here()
_idle: list[_Thread] = []


def current_strand() -> Strand | None:
    """The strand whose code this is; None outside of any."""
    return _here.strand
