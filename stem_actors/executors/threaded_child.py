"""How sync tasks run several at a time inside an executor: each in a thread, while the main thread claims and interrupts.

Claims are taken as they come, since their worker never hands over more than there are threads. An interrupt is raised by
`PyThreadState_SetAsyncExc` in the thread that runs its claim, between two byte codes of user code. A thread that is inside a
blocking call in C (`time.sleep`, a socket) hears of it when that call returns; only the hard limit, which kills the process, is
sooner.

The difficulty is that such an exception cannot be addressed to a claim: the thread may have left user code by the time it comes.
So each run has a `Gate`. The main thread sets an exception only while the gate is open; the run, whose own thread shuts the gate,
takes back what was set and has not been raised. Then nothing can come any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from stem_actors.errors import TaskInterrupt
from stem_actors.executors.channel import Channel, WorkerGone
from stem_actors.executors.context import enter, leave
from stem_actors.executors.frames import EndKind, Handed
from stem_actors.executors.runs import Run, classify, interrupt_error

__all__ = ["ThreadedExecutor"]

Prepare = Callable[[Handed], Run | None]
Report = Callable[[Run, EndKind, Any, float, float], None]

_FAILURE = 70
_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = [ctypes.c_ulong, ctypes.py_object]
_NULL = ctypes.py_object()
"""Instead of a class: takes back what has not been raised."""


class Gate:
    """Lets interrupts into one run's user code, and into nothing else.

    `interrupt` may be called from any thread; the rest belongs to the thread that runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = 0
        self._is_open = False
        self._waiting: BaseException | None = None
        self._set: BaseException | None = None

    def interrupt(self, error: BaseException) -> None:
        """Raise `error` in the run, as soon as user code runs there."""
        with self._lock:
            if self._is_open:
                self._set = error
                _set_async_exc(self._thread, self._carrier(error))
            else:
                self._waiting = error

    def open(self) -> None:
        """User code begins. Raises what came before."""
        with self._lock:
            self._thread = threading.get_ident()
            self._is_open = True
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            raise waiting

    def shut(self) -> BaseException | None:
        """User code has ended; returns what was on its way and is not raised any more.

        May itself be hit by it, and is then to be called again.
        """
        with self._lock:
            self._is_open = False
            unraised, self._set = self._set, None
            if unraised is not None:
                _set_async_exc(threading.get_ident(), _NULL)
            return unraised

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Our own code runs inside the user's: what comes meanwhile is raised afterwards."""
        try:
            unraised = self.shut()
        except TaskInterrupt:  # for the user's code that called us
            self._is_open = True
            raise
        if unraised is not None:
            self._waiting = unraised
        try:
            yield
        finally:
            self.open()

    def _carrier(self, error: BaseException) -> type[BaseException]:
        """A class like the error's, made with the error's arguments: only a class can be raised in another thread.

        It is made when it is caught for the first time, which tells us that it has been raised.
        """
        plain = type(error)

        def init(self_: BaseException) -> None:
            if self._set is error:
                self._set = None
            plain.__init__(self_, *error.args)

        same = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
        return type(plain.__name__, (plain,), {"__init__": init, **same})


class ThreadedExecutor:
    """Serves one channel with threads until the worker says stop or is gone. `run` belongs to the main thread."""

    def __init__(
        self, channel: Channel, threads: int, prepare: Prepare, report: Report, leave_if_copy: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._threads = threads
        self._prepare = prepare
        self._report = report
        self._leave_if_copy = leave_if_copy
        self._runs: dict[int, Gate] = {}
        self._gates: dict[int, Gate] = {}
        self._claimed: queue.SimpleQueue[tuple[Run, Gate]] = queue.SimpleQueue()

    def run(self, first: Run) -> None:
        """Run until there is nothing more to do; raises `WorkerGone` when the worker went away."""
        channel = self._channel
        os.set_blocking(channel.claims_fd, False)
        for number in range(self._threads):
            threading.Thread(target=self._serve, name=f"stem-task-{number}", daemon=True).start()
        poll = select.poll()
        for fd in (channel.sock.fileno(), channel.claims_fd):
            poll.register(fd, select.POLLIN)
        self._start(first)
        while True:
            self._take_claims()
            self._interrupt_runs()
            if channel.is_stopping and not self._runs:
                raise WorkerGone
            poll.poll()
            channel.read(block=False)

    def held(self) -> contextlib.AbstractContextManager[None]:
        """For our own code that a task calls: interrupts of the calling thread's run wait."""
        gate = self._gates.get(threading.get_ident())
        return contextlib.nullcontext() if gate is None else gate.held()

    def _take_claims(self) -> None:
        while (handed := self._channel.try_claim()) is not None:
            run = self._prepare(handed)
            if run is not None:
                self._start(run)

    def _start(self, run: Run) -> None:
        gate = self._runs[run.handed.claim] = Gate()
        self._claimed.put((run, gate))

    def _interrupt_runs(self) -> None:
        channel = self._channel
        if not channel.interrupts and not channel.cancelled:
            return
        for claim in list(channel.interrupts):
            gate = self._runs.get(claim)
            if gate is not None:
                gate.interrupt(interrupt_error(*channel.interrupts.pop(claim)))
        channel.forget_others(*self._runs)

    # ------------------------------------------------------------ the threads

    def _serve(self) -> None:
        try:
            while True:
                self._run_one(*self._claimed.get())
        except WorkerGone:
            return  # the main thread hears of it too
        except BaseException:  # our own code failed: a thread that is silently gone would be worse than a death
            traceback.print_exc()
            os._exit(_FAILURE)

    def _run_one(self, run: Run, gate: Gate) -> None:
        token = enter(run.context)
        self._gates[threading.get_ident()] = gate
        started_at, started = time.time(), time.perf_counter()
        kind, detail = self._call(run, gate)
        seconds = time.perf_counter() - started
        del self._gates[threading.get_ident()]
        leave(token)
        del self._runs[run.handed.claim]
        self._report(run, kind, detail, started_at, seconds)

    def _call(self, run: Run, gate: Gate) -> tuple[EndKind, Any]:
        """Run user code behind its gate. An interrupt under way may come anywhere up to the end of `shut`."""
        end: tuple[EndKind, Any] | None = None
        while True:
            try:
                if end is None:
                    try:
                        gate.open()
                        end = EndKind.RETURNED, run.call()
                    except BaseException as error:  # user code: also SystemExit ends the run, not the executor
                        end = classify(error)
                self._leave_if_copy()
                gate.shut()
                return end
            except TaskInterrupt as late:
                end = end or classify(late)
