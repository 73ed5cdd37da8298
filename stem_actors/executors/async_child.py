"""How `async def` tasks run inside an executor: many at once on one event loop, in the process's main thread.

Claims are taken as they come, since their worker never hands over more than there are slots. An interrupt is thrown into the
coroutine where it waits, as the exception it is (a plain `Task.cancel()` could only throw `CancelledError`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator
from typing import Any

from stem_actors.executors.channel import Channel, WorkerGone
from stem_actors.executors.context import enter
from stem_actors.executors.frames import EndKind, Handed
from stem_actors.executors.runs import Run, classify, interrupt_error

__all__ = ["AsyncExecutor"]

Prepare = Callable[[Handed], Run | None]
Report = Callable[[Run, EndKind, Any, float, float], None]


class AsyncExecutor:
    """Serves one channel on one event loop until the worker says stop or is gone."""

    def __init__(self, channel: Channel, prepare: Prepare, report: Report, leave_if_copy: Callable[[], None]) -> None:
        self._channel = channel
        self._prepare = prepare
        self._report = report
        self._leave_if_copy = leave_if_copy
        self._runs: dict[int, tuple[asyncio.Task[None], _Interruptible]] = {}
        self._gone: asyncio.Future[None]

    def run(self, first: Run) -> None:
        """Run until there is nothing more to do; raises `WorkerGone` when the worker went away."""
        os.set_blocking(self._channel.claims_fd, False)
        asyncio.run(self._serve(first))

    async def _serve(self, first: Run) -> None:
        loop = asyncio.get_running_loop()
        self._gone = loop.create_future()
        loop.add_reader(self._channel.sock.fileno(), self._guarded, self._on_frames)
        loop.add_reader(self._channel.claims_fd, self._guarded, self._on_claims)
        self._start(first)
        self._guarded(self._on_claims)  # bytes that came before the loop ran
        try:
            await self._gone
        finally:
            loop.remove_reader(self._channel.sock.fileno())
            loop.remove_reader(self._channel.claims_fd)

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except WorkerGone as error:
            if not self._gone.done():
                self._gone.set_exception(error)

    def _on_frames(self) -> None:
        self._channel.read(block=False)
        self._interrupt_runs()
        if self._channel.is_stopping and not self._runs:
            raise WorkerGone

    def look_again(self) -> None:
        """Somebody else has read frames, in this thread: see what came with them."""
        asyncio.get_running_loop().call_soon(self._guarded, self._on_frames)

    def _interrupt_runs(self) -> None:
        """Pass interrupts on; one for a claim that has yet to start waits for it."""
        if not self._channel.interrupts:
            return
        for claim in [claim for claim in self._channel.interrupts if claim in self._runs]:
            task, coroutine = self._runs[claim]
            coroutine.interrupt = interrupt_error(*self._channel.interrupts.pop(claim))
            if coroutine.has_started:
                task.cancel()  # before that it would end the asyncio task without a step, and without a report
        self._channel.forget_others(*self._runs)

    def _on_claims(self) -> None:
        while (handed := self._channel.try_claim()) is not None:
            run = self._prepare(handed)
            if run is not None:
                self._start(run)
        self._on_frames()  # some may have come with those that were read for a claim

    def _start(self, run: Run) -> None:
        coroutine = _Interruptible(run, self._leave_if_copy)
        task = asyncio.get_running_loop().create_task(self._run_one(run, coroutine))
        self._runs[run.handed.claim] = task, coroutine

    async def _run_one(self, run: Run, coroutine: _Interruptible) -> None:
        enter(run.context)  # each asyncio task has a context of its own
        started_at, started = time.time(), time.perf_counter()
        kind, detail = EndKind.RETURNED, None
        try:
            detail = await coroutine
        except BaseException as error:  # user code
            kind, detail = classify(error)
        seconds = time.perf_counter() - started
        self._leave_if_copy()
        del self._runs[run.handed.claim]
        self._channel.forget(run.handed.claim)
        self._guarded(lambda: self._report(run, kind, detail, started_at, seconds))


class _Interruptible:
    """Awaits a user's coroutine and turns the cancellation that carries `interrupt` into that exception, at the same place."""

    def __init__(self, run: Run, leave_if_copy: Callable[[], None]) -> None:
        self._run = run
        self._leave_if_copy = leave_if_copy
        self.interrupt: BaseException | None = None
        self.has_started = False

    def __await__(self) -> Generator[Any, Any, Any]:
        # Called here: a call with the wrong arguments is the task's failure, like any error in it.
        coroutine = self._run.start()
        self.has_started = True
        value: Any = None
        error = self._take_interrupt()
        while True:
            try:
                awaited = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            self._leave_if_copy()  # the task forked: the copy must not go on with the loop, which runs the others' tasks
            try:
                value, error = (yield awaited), None
            except asyncio.CancelledError as cancelled:
                value, error = None, self._take_interrupt()
                if error is None:
                    error = cancelled
                elif (task := asyncio.current_task()) is not None:
                    task.uncancel()  # it never was a cancellation: `asyncio.timeout` inside the task counts them
            except BaseException as thrown:
                value, error = None, thrown

    def _take_interrupt(self) -> BaseException | None:
        interrupt, self.interrupt = self.interrupt, None
        return interrupt
