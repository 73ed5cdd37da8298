"""All that runs inside an executor process: load the application, claim tasks, run them, report.

Sync tasks run in the main thread, one at a time; `async def` tasks share an event loop in that same thread (`async_child.py`).
With `Shape.threads` above 1, sync tasks run in threads, several at a time (`threaded_child.py`). Which of these a process does is
settled by its first task; its worker never mixes them.

An executor knows its pipes and nothing else of Stem: no broker, no lease but its end, no other task.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from stem_actors.clock import SystemClock
from stem_actors.errors import BrokerUnavailable, MalformedMessage, PayloadError, UsageError
from stem_actors.executors.application import Application, ApplicationSource, CannotLoad, load
from stem_actors.executors.channel import Channel, PipesClosed, WorkerGone
from stem_actors.executors.context import TaskContext, connect, enter, leave, log_fields
from stem_actors.executors.errands import Errand, answer_of
from stem_actors.executors.frames import EndKind, FromExecutor, Handed
from stem_actors.executors.runs import Run, classify, describe, interrupt_error
from stem_actors.logs import set_up_logging
from stem_actors.model.envelope import Envelope

if TYPE_CHECKING:
    from stem_actors.executors.async_child import AsyncExecutor
    from stem_actors.executors.threaded_child import ThreadedExecutor

__all__ = ["INTERRUPT_SIGNAL", "PIPES_CLOSED", "Codec", "Executor", "Shape", "die_with_parent", "main"]

INTERRUPT_SIGNAL = signal.SIGRTMIN + 7
"""Tells an executor that an interrupt waits in its socket. A real-time signal, so that it clashes with no user's handler."""

PIPES_CLOSED = 71
"""Exit code of an executor whose task has closed its pipes."""

_PR_SET_PDEATHSIG = 1
_ENDED, _RETURNED = FromExecutor.ENDED, EndKind.RETURNED  # looked at for every task, see `frames.py`
_TERMINAL_SIGNALS: Mapping[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class DecodeEnvelope(Protocol):
    def __call__(self, body: bytes, *, types: Any) -> Envelope: ...


class EncodePayload(Protocol):
    def __call__(self, value: Any, max_bytes: int, *, types: Any) -> bytes: ...


class Codec(NamedTuple):
    """How bodies are read and results written; handed in, since executors and codecs do not know each other."""

    decode_envelope: DecodeEnvelope
    encode_payload: EncodePayload


class Shape(NamedTuple):
    """How executors are to be: `threads` sync tasks at once, and `address_space` bytes of memory at most (None: no limit)."""

    threads: int = 1
    address_space: int | None = None


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux; elsewhere the closed pipe tells)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(
    sock: socket.socket,
    claims: Connection,
    parent_pid: int | None,
    source: ApplicationSource,
    codec: Codec,
    logging: tuple[str, str],
    shape: Shape,
) -> None:
    """The entry of an executor process. Never returns: it ends with the process.

    `parent_pid`: who must still be the parent once the death signal is armed, None where the start method makes it unknowable.
    """
    _settle_in(parent_pid)
    set_up_logging(*logging, fields=log_fields)
    channel = Channel(sock, os.dup(claims.fileno()))
    claims.close()
    code = 0
    connect(None)  # what a module enqueues while it is imported here has no way out yet
    try:
        application = load(source)
        _limit_memory(shape.address_space)
    except CannotLoad as error:
        channel.send(FromExecutor.UNUSABLE, error.exit_code, str(error))
        _leave(0)
    try:
        executor = Executor(
            channel, application, codec, shape.threads
        )  # it hears the interrupt signal before anybody may send one
        connect(executor)
        channel.send(FromExecutor.READY, application.catalogue)
        executor.run()
    except PipesClosed:
        code = PIPES_CLOSED
    except WorkerGone:
        pass
    except BaseException:
        traceback.print_exc()
        code = 70
    _leave(code)


def _settle_in(parent_pid: int | None) -> None:
    os.setsid()
    die_with_parent()
    if parent_pid is not None and os.getppid() != parent_pid:
        _leave(0)
    # Not SIG_IGN, which programs started by a task would inherit: they must die of a SIGTERM as they always do.
    for number in _TERMINAL_SIGNALS:
        signal.signal(number, _leave_to_worker)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")  # when memory runs out the kernel should take a task, not the worker that guards its lease


def _limit_memory(address_space: int | None) -> None:
    """From now on, after the application has taken what it needs. Programs that a task starts inherit it.

    Raises:
        CannotLoad: it needs more than that already.
    """
    if address_space is None:
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if used >= address_space:
        raise CannotLoad(
            f"an executor has {used >> 20} MiB of address space once the application is loaded, and may have "
            f"{address_space >> 20} MiB. Raise --max-address-space-per-executor (STEM_MAX_ADDRESS_SPACE_PER_EXECUTOR)."
        )
    resource.setrlimit(resource.RLIMIT_AS, (address_space, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _leave_to_worker(_signal: int, _frame: object) -> None:
    """What a terminal or an operator sends to a whole group: the worker decides what becomes of its executors."""


def _leave(code: int) -> NoReturn:
    """End without running what a forkserver's child has no business running (its parent's exit handlers), output flushed."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class Executor:
    """Claims and runs tasks one after another in the main thread."""

    def __init__(self, channel: Channel, application: Application, codec: Codec, threads: int) -> None:
        self._channel = channel
        self._threads = threads
        self._threaded: ThreadedExecutor | None = None
        self._application = application
        self._codec = codec
        self._types = application.payload_types
        self._execute = [each.execute for each in application.middlewares if each.execute is not None]
        self._aexecute = [each.aexecute for each in application.middlewares if each.aexecute is not None]
        self._clock = SystemClock()
        self._current: Handed | None = None
        self._in_user_code = False
        self._is_copy = False
        self._serves_many = False
        self._loop: AsyncExecutor | None = None
        self._reading = threading.RLock()  # held by whoever reads while a sync task runs
        self._masks = threading.local()
        self.settle_in()

    def settle_in(self) -> None:
        """Hear the worker's signal, and know a forked copy."""
        signal.signal(INTERRUPT_SIGNAL, self._on_interrupt)
        os.register_at_fork(before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self._become_copy)

    def run(self) -> None:
        channel = self._channel
        while True:
            handed = channel.claim()
            run = self.prepare(handed)
            if run is None:
                continue
            if run.task.is_async:
                from stem_actors.executors.async_child import AsyncExecutor

                self._serves_many = True
                self._loop = AsyncExecutor(channel, self.prepare, self.report, self.leave_if_copy)
                self._loop.run(run)
                return
            if self._threads > 1:
                from stem_actors.executors.threaded_child import ThreadedExecutor

                self._serves_many = True
                self._threaded = ThreadedExecutor(channel, self._threads, self.prepare, self.report, self.leave_if_copy)
                self._threaded.run(run)
                return
            self._run_one(run)

    # ------------------------------------------------------------ shared with the async executor

    def prepare(self, handed: Handed) -> Run | None:
        """Decode and look up; None when the task ended right here and was reported."""
        if self._clock.monotonic() >= handed.deadline:
            self._end_unstarted(handed, EndKind.NOT_STARTED)
            return None
        try:
            envelope = self._codec.decode_envelope(handed.body, types=self._types)
        except MalformedMessage as error:
            self._end_unstarted(handed, EndKind.UNREADABLE, [error.reason, str(error)])
            return None
        task = self._application.registry.find(envelope.name)
        if task is None:
            self._end_unstarted(handed, EndKind.UNREGISTERED)
            return None
        if handed.announce:
            self._channel.send(FromExecutor.STARTED, handed.claim)
        deadline = None if handed.hard_limit is None else self._clock.now() + handed.hard_limit
        context = TaskContext(
            self,
            handed.claim,
            envelope.id,
            envelope.name,
            handed.attempt,
            envelope.headers,
            envelope.meta,
            deadline,
            envelope.args,
            envelope.kwargs,
            self._application.instance,
        )
        return Run(handed, envelope, task, context, self._execute, self._aexecute)

    def _end_unstarted(self, handed: Handed, kind: EndKind, detail: Any = None) -> None:
        self._channel.send(FromExecutor.ENDED, handed.claim, int(kind), detail, 0.0, 0.0)

    def report(self, run: Run, kind: EndKind, detail: Any, started_at: float, seconds: float) -> None:
        """Write the end of a run, before anything else is claimed. An unwritable result ends the run as an error."""
        handed = run.handed
        if kind is _RETURNED:
            try:
                detail = (
                    None
                    if handed.ignore_result
                    else self._codec.encode_payload(detail, handed.max_result_bytes, types=self._types)
                )
            except Exception as error:  # also user code: a value whose own methods raise while it is written
                text = str(error) if isinstance(error, PayloadError) else f"{type(error).__name__}: {error}"
                kind, detail = EndKind.RAISED, ["ResultRejected", f"task {run.task.name!r} returned: {text}", None, False]
        elif kind is EndKind.RAISED:
            detail = describe(detail, run.task)
        elif kind is EndKind.ASKED_RETRY:
            detail = [*describe(detail, run.task)[:3], detail.delay, dict(detail.overrides)]
        self._channel.send(_ENDED, handed.claim, int(kind), detail, started_at, seconds)

    def leave_if_copy(self) -> None:
        """End a task's forked copy of this process: the run, and the loop it came from, belong to the original."""
        if self._is_copy:
            _leave(0)

    # ------------------------------------------------------------ what a task says by its context (`ExecutorLink`)

    def send_progress(self, claim: int, percent: float, data: Mapping[str, Any]) -> None:
        self._say(claim, FromExecutor.PROGRESS, percent, dict(data))

    def send_heartbeat(self, claim: int) -> None:
        self._say(claim, FromExecutor.PROGRESS, None, None)

    def extend_lease(self, claim: int, by: float | None) -> None:
        self._say(claim, FromExecutor.EXTEND, by)

    def is_cancelled(self, claim: int) -> bool:
        self._look_for_interrupts()
        return claim in self._channel.cancelled

    def _say(self, claim: int, kind: FromExecutor, *parts: Any) -> None:
        with self._in_our_code():
            self._channel.send(kind, claim, *parts)
        self._look_for_interrupts()
        if self._threaded is None:  # else each run's gate has seen to it
            self._raise_interrupt(claim)

    def _look_for_interrupts(self) -> None:
        if not self._serves_many and threading.current_thread() is threading.main_thread():
            with self._in_our_code(), self._reading:
                self._channel.read(block=False)

    # ------------------------------------------------------------ what is done for a task by the worker (`WorkerLink`)

    def ask(self, errand: Errand, payload: Any, timeout: float) -> Any:
        """Have the worker do something at its broker, and wait for the answer; see `errands.py`."""
        if self._is_copy:
            raise UsageError("a forked copy of an executor has no way to its worker's memory broker; enqueue in the task itself")
        with self._in_our_code():
            reply = self._channel.ask(timeout, self._read_some, int(errand), payload)
        if self._loop is not None and threading.current_thread() is threading.main_thread():
            self._loop.look_again()
        if reply is None:
            raise BrokerUnavailable(f"the worker has not answered within {timeout:g} s; what was asked may be done or not")
        return answer_of(*reply)

    def _read_some(self, seconds: float) -> bool:
        """Wait for frames and take them in, if this thread may: the main thread, or any other while a sync task runs in that."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main and (self._serves_many or self._current is None):
            return False
        select.select([self._channel.sock], [], [], seconds)
        with self._reading:
            # Once the task has ended, reading is for the main thread alone, which goes by the order of frames and claims.
            if is_main or self._current is not None:
                self._channel.read(block=False)
        return True

    # ------------------------------------------------------------ sync tasks

    def _run_one(self, run: Run) -> None:
        self._channel.forget_others(run.handed.claim)
        self._current = run.handed
        token = enter(run.context)
        started_at, started = time.time(), time.perf_counter()
        kind, detail = _RETURNED, None
        try:
            self._in_user_code = True
            try:
                if self._channel.interrupts:  # one that came with the task; its signals may be over
                    self._raise_interrupt(run.handed.claim)
                detail = run.call()
            finally:
                self._in_user_code = False
        except BaseException as error:  # user code: also SystemExit and KeyboardInterrupt end the run, not the executor
            self._in_user_code = False  # an interrupt may have come just before the line above did this
            kind, detail = classify(error)
        seconds = time.perf_counter() - started
        leave(token)
        with self._reading:
            self._current = None
        self.leave_if_copy()
        self._channel.forget(run.handed.claim)
        self.report(run, kind, detail, started_at, seconds)

    def _on_interrupt(self, _signal: int, _frame: object) -> None:
        """Runs between two byte codes of the main thread; raises only in user code of the claim that the interrupt names.

        While our own code runs, nothing is done: the worker repeats the signal until the run has ended.
        """
        if not self._in_user_code or self._current is None or self._is_copy:
            return
        self._look_for_interrupts()
        self._raise_interrupt(self._current.claim)

    def _raise_interrupt(self, claim: int) -> None:
        interrupts = self._channel.interrupts
        if not interrupts:
            return
        # A task's own thread hears of it too, but it is the main thread's to take.
        is_main = threading.current_thread() is threading.main_thread()
        interrupt = interrupts.pop(claim, None) if is_main else interrupts.get(claim)
        if interrupt is not None:
            raise interrupt_error(*interrupt)

    @contextlib.contextmanager
    def _in_our_code(self) -> Iterator[None]:
        """No interrupt is raised inside; a half-written frame would garble the stream."""
        if self._threaded is not None:
            with self._threaded.held():
                yield
            return
        if threading.current_thread() is not threading.main_thread():  # interrupts are raised in the main thread only
            yield
            return
        before, self._in_user_code = self._in_user_code, False
        try:
            yield
        finally:
            self._in_user_code = before

    # ------------------------------------------------------------ a task's forked copies of this process

    def _block_signals(self) -> None:
        """What is sent to a copy before it is ready for it waits until it is."""
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL_SIGNALS)

    def _unblock_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _become_copy(self) -> None:
        """A worker must not take a grandchild for its executor; and it must end by `Process.terminate()` as any process."""
        self._is_copy = True
        self._channel.close()
        for number, plain in _TERMINAL_SIGNALS.items():
            if signal.getsignal(number) is _leave_to_worker:
                signal.signal(number, plain)
        self._unblock_signals()
