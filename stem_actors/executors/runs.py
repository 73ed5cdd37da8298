"""One run inside an executor: the call itself, how it can be interrupted, and what it is reported as when it raises."""

from __future__ import annotations

import os
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

from stem_actors.errors import SoftTimeLimitExceeded, TaskInterrupt, TaskReleased, TaskRevoked
from stem_actors.executors.context import RetryRequested, TaskContext
from stem_actors.executors.frames import EndKind, Handed, InterruptKind
from stem_actors.middleware import chain
from stem_actors.model.envelope import Envelope
from stem_actors.model.task import TaskDefinition

__all__ = ["Run", "classify", "describe", "interrupt_error"]

_OUR_FRAMES = (os.path.dirname(__file__), os.path.dirname(chain.__file__))


class Run(NamedTuple):
    """One task that this process has claimed."""

    handed: Handed
    envelope: Envelope
    task: TaskDefinition
    context: TaskContext
    execute: Sequence[chain.AroundSync]
    aexecute: Sequence[chain.AroundAsync]

    def call(self) -> Any:
        """Call the function, through what middleware there is."""
        context = self.context
        if not self.execute:
            return self.task.function(*context.args, **context.kwargs)
        return chain.call_through(self.execute, context, self._call_with, "run the task")

    def start(self) -> Coroutine[Any, Any, Any]:
        """The coroutine of an `async def` task, in that of its middleware."""
        context = self.context
        coroutine: Coroutine[Any, Any, Any]
        if not self.aexecute:
            coroutine = self.task.function(*context.args, **context.kwargs)
        else:
            coroutine = chain.call_through_async(self.aexecute, context, self._call_with, "run the task")
        return coroutine

    def _call_with(self, context: TaskContext) -> Any:
        return self.task.function(*context.args, **context.kwargs)


def interrupt_error(kind: InterruptKind, reason: str | None) -> TaskInterrupt:
    """The exception that a running task sees."""
    match kind:
        case InterruptKind.SOFT_LIMIT:
            return SoftTimeLimitExceeded("the task ran longer than its soft time limit")
        case InterruptKind.REVOKED:
            return TaskRevoked(reason or "the task was revoked")
        case InterruptKind.RELEASED:
            return TaskReleased("the worker is leaving; the task will run again elsewhere")


def classify(error: BaseException) -> tuple[EndKind, Any]:
    """How a run that raised `error` ended."""
    match error:
        case RetryRequested():
            return EndKind.ASKED_RETRY, error
        case TaskRevoked():
            return EndKind.INTERRUPTED, int(InterruptKind.REVOKED)
        case TaskReleased():
            return EndKind.INTERRUPTED, int(InterruptKind.RELEASED)
        case _:
            return EndKind.RAISED, error


def describe(error: BaseException, task: TaskDefinition) -> list[Any]:
    """An exception as data: class name, message, traceback without our own frames, and whether the policy lets it be retried."""
    policy = task.options.retry_policy
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # what filled the memory is theirs
    user_frames = error.__traceback__
    while user_frames is not None and os.path.dirname(user_frames.tb_frame.f_code.co_filename) in _OUR_FRAMES:
        user_frames = user_frames.tb_next
    try:
        message = str(error)
        stack = "".join(traceback.format_exception(type(error), error, user_frames))
    except BaseException as broken:  # user code: an exception whose __str__ raises
        message, stack = f"<its message cannot be read: {type(broken).__name__}>", ""
    return [type(error).__name__, _printable(message), _printable(stack)[-16_384:], policy is None or policy.allows(error)]


def _printable(text: str) -> str:
    """Lone surrogates have no wire form."""
    return text[:65_536].encode("utf-8", "backslashreplace").decode("utf-8")
