"""Middleware that writes down when user code is entered and left, and has the fault points of an executor.

The difficulty is that an interrupt (a soft limit, a revocation) is raised wherever its run happens to be, in user code or in
these lines around it; but a start whose end is missing would say that the run still goes on.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Awaitable, Callable
from typing import Any

from stem_actors import TaskContext, TaskInterrupt
from stem_chaos.history import Phase, Recorder, Verb
from stem_chaos.points import Points

__all__ = ["Recording"]


class Recording:
    """What goes around the runs of one executor."""

    def __init__(self, recorder: Recorder, points: Points) -> None:
        self._recorder = recorder
        self._points = points

    def execute(self, run: TaskContext, call_next: Callable[[TaskContext], Any]) -> Any:
        """Around a sync task. An interrupt may be raised in any of these lines, as in the task's; the end is written anyhow."""
        span = _Span(self._recorder, self._points, run)
        result, has_entered = None, False
        error: BaseException | None = None
        try:
            while True:
                try:
                    if not has_entered:
                        has_entered = True
                        try:
                            span.start()
                            result = call_next(run)
                        except BaseException as raised:
                            error = raised
                    span.end(error)
                    break
                except TaskInterrupt as interrupt:
                    if not span.has_ended:  # else it is too late, as any that comes after a task's last line
                        error = error or interrupt
            if error is not None:
                raise error
            return result
        finally:
            del error  # its traceback holds this frame

    async def aexecute(self, run: TaskContext, call_next: Callable[[TaskContext], Awaitable[Any]]) -> Any:
        """Around an `async def` task, which is interrupted only where it waits."""
        span = _Span(self._recorder, self._points, run)
        span.start()
        try:
            result = await call_next(run)
        except BaseException as error:
            span.end(error)
            raise
        span.end(None)
        return result


class _Span:
    """The start and the end of one run, each written down once. A task's forked copy of the executor writes nothing."""

    def __init__(self, recorder: Recorder, points: Points, run: TaskContext) -> None:
        self._recorder = recorder
        self._points = points
        self._run = run
        self._pid = os.getpid()
        self._started: list[int] = []
        self._ended: list[int] = []

    @property
    def has_ended(self) -> bool:
        return bool(self._ended)

    def start(self) -> None:
        self._points.reach("start.before")
        worker = multiprocessing.current_process().name.rpartition("/")[0]
        self._write_once(self._started, Verb.START, task=self._run.name, worker=worker)
        self._points.reach("start.after")

    def end(self, error: BaseException | None) -> None:
        """May be repeated when it was interrupted. What had not started does not end."""
        if not self._started or os.getpid() != self._pid:
            return
        outcome = {"outcome": "returned"} if error is None else {"outcome": "raised", "error": type(error).__name__}
        self._write_once(self._ended, Verb.END, **outcome)
        self._points.reach("result.before")

    def _write_once(self, written: list[int], verb: Verb, **detail: Any) -> None:
        if not written:
            run, recorder = self._run, self._recorder
            line = recorder.line(verb, Phase.OK, recorder.next_call(), task_id=run.id, attempt=run.attempt, **detail)
            # One call into C, so that no interrupt can come between writing it and knowing that it is written.
            written.extend(map(os.write, (recorder.open(),), (line,)))
