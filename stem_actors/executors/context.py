"""What a running task can ask and say: `current_task()` gives its `TaskContext`.

Owns the context variable. What the context says goes through an `ExecutorLink` to the process that supervises the executor;
how it travels is the executor's business. A context belongs to one run; it may be used from the task's other threads too.
"""

from __future__ import annotations

import datetime as dt
import functools
import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, NoReturn, Protocol

from stem_actors.clock import SystemClock
from stem_actors.errors import StemError, UsageError
from stem_actors.executors.errands import WorkerLink
from stem_actors.model.moments import delay_until
from stem_actors.model.record import TaskRecord

__all__ = [
    "Enqueued",
    "Enqueuer",
    "ExecutorLink",
    "RetryRequested",
    "TaskContext",
    "connect",
    "current_task",
    "enter",
    "find_task",
    "is_executor",
    "leave",
    "log_fields",
    "worker_link",
]


class ExecutorLink(Protocol):
    """What a task's context needs of its executor. Each call names the claim it speaks for; all may come from any thread."""

    def send_progress(self, claim: int, percent: float, data: Mapping[str, Any]) -> None: ...

    def send_heartbeat(self, claim: int) -> None: ...

    def extend_lease(self, claim: int, by: float | None) -> None: ...

    def is_cancelled(self, claim: int) -> bool: ...


class Enqueued(Protocol):
    """A task that was enqueued: what `stem_actors.Handle` is, whose home is above this layer."""

    id: str

    def status(self) -> TaskRecord: ...
    def get(self, timeout: float | None = None) -> Any: ...
    async def aget(self, timeout: float | None = None) -> Any: ...
    def revoke(self, terminate: bool = False, reason: str | None = None) -> None: ...


class Enqueuer(Protocol):
    """What a context enqueues by: the application."""

    def enqueue_inheriting(
        self,
        task: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        headers: Mapping[str, str],
        meta: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Enqueued:
        """Enqueue `task`, a `Task` or a name; its own headers and meta, and those in `options`, go before those given."""
        ...


class RetryRequested(StemError):
    """Raised by `TaskContext.retry` to end the run. Let it pass: a task that catches it is not retried.

    `delay` in seconds, None: as the retry policy has it. `overrides` go into the task's state and hold for later attempts:
    `max_retries`, and the time limits under the keys they have in an envelope's meta.
    """

    def __init__(self, delay: float | None, overrides: Mapping[str, Any]) -> None:
        super().__init__("the task asked to be retried")
        self.delay = delay
        self.overrides = overrides


class TaskContext:
    """One run of a task, as the task sees it.

    `attempt`   0 at the first run, one more after each that failed or asked for a retry
    `headers`   as the producer sent them; so is `meta`
    `deadline`  when the hard time limit ends the run, seconds since the epoch; None: no limit
    `args`      what the function is called with; so is `kwargs`. Middleware may set either before it calls the next
    """

    __slots__ = (
        "_claim",
        "_enqueuer",
        "_link",
        "_logger",
        "args",
        "attempt",
        "deadline",
        "headers",
        "id",
        "kwargs",
        "meta",
        "name",
    )

    def __init__(
        self,
        link: ExecutorLink,
        claim: int,
        id: str,
        name: str,
        attempt: int,
        headers: Mapping[str, str],
        meta: Mapping[str, Any],
        deadline: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        enqueuer: Enqueuer | None = None,
    ) -> None:
        self._link = link
        self._claim = claim
        self._logger: logging.Logger | None = None
        self.id = id
        self.name = name
        self.attempt = attempt
        self.headers = headers
        self.meta = meta
        self.deadline = deadline
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self._enqueuer = enqueuer

    def __repr__(self) -> str:
        return f"<TaskContext {self.name} {self.id} attempt {self.attempt}>"

    @property
    def logger(self) -> logging.Logger:
        """The logger `stem.task.<name>`. Like any logger in a task, its lines carry task, id and attempt."""
        if self._logger is None:
            self._logger = logging.getLogger(f"stem.task.{self.name}")
        return self._logger

    @property
    def is_cancelled(self) -> bool:
        """The run was revoked or has lost its lease: what it does from here on counts for nothing."""
        return self._link.is_cancelled(self._claim)

    def progress(self, percent: float, data: Mapping[str, Any] | None = None) -> None:
        """Say how far the task is, 0.0 to 1.0 by convention. Stored at most once a second; cheap to call often.

        Raises:
            TaskRevoked: the task was revoked with `terminate`.
        """
        self._link.send_progress(self._claim, percent, data or {})

    def heartbeat(self) -> None:
        """Say that the task is alive; raises like `progress`."""
        self._link.send_heartbeat(self._claim)

    def extend_lease(self, by: float | None = None) -> None:
        """Ask for the lease to be renewed now, for `by` seconds (None: a visibility timeout). Leases are renewed anyway."""
        self._link.extend_lease(self._claim, by)

    def enqueue(
        self,
        task: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        add_to_parent: bool = True,
        **options: Any,
    ) -> Enqueued:
        """Enqueue another task, a `Task` or a name, that inherits this one's headers and meta; durable when it returns.

        Its meta says where it comes from (`stem.parentTaskId`, `stem.parentAttempt`, `stem.rootTaskId`) unless `add_to_parent` is
        False. `options` as for `Task.options`; headers and meta named there go before what is inherited. What stands in meta
        under `stem.` belongs to this call and is not inherited, such as its time limits. A redelivered task enqueues again: name
        a `task_id` where that must not be. The return value is a `Handle`.

        Raises:
            UsageError: this context belongs to no application.
        """
        if self._enqueuer is None:
            raise UsageError("this task context belongs to no application, so there is nothing to enqueue by")
        meta = {key: value for key, value in self.meta.items() if not key.startswith("stem.")}
        if add_to_parent:
            meta |= {
                "stem.parentTaskId": self.id,
                "stem.parentAttempt": self.attempt,
                "stem.rootTaskId": self.meta.get("stem.rootTaskId", self.id),
            }
        return self._enqueuer.enqueue_inheriting(task, args, kwargs or {}, self.headers, meta, options)

    async def aenqueue(
        self,
        task: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        add_to_parent: bool = True,
        **options: Any,
    ) -> Enqueued:
        """Like `enqueue`, without blocking the event loop."""
        import asyncio  # slow to import, and loaded already where this runs

        enqueue = functools.partial(self.enqueue, task, args, kwargs, add_to_parent=add_to_parent, **options)
        return await asyncio.to_thread(enqueue)

    def spawn(self, task: Any, *args: Any, **kwargs: Any) -> Enqueued:
        """`enqueue` for a plain call: `current_task().spawn(resize, picture, width=80)`."""
        return self.enqueue(task, args, kwargs)

    def retry(
        self,
        countdown: float | None = None,
        eta: dt.datetime | float | None = None,
        max_retries: int | None = None,
        soft_time_limit: float | None = None,
        hard_time_limit: float | None = None,
    ) -> NoReturn:
        """End this run and ask for another, after `countdown` seconds or at `eta` (else as the retry policy has it).

        A number of retries or a time limit given here holds for all later attempts. With no retries left the task fails.

        Raises:
            RetryRequested: always; let it pass.
        """
        overrides = {
            "max_retries": max_retries,
            "stem.softTimeLimitMs": None if soft_time_limit is None else round(soft_time_limit * 1000),
            "stem.timeLimitMs": None if hard_time_limit is None else round(hard_time_limit * 1000),
        }
        delay = None if countdown is None and eta is None else delay_until(countdown, eta, SystemClock().now())
        raise RetryRequested(delay, {key: value for key, value in overrides.items() if value is not None})


_current: ContextVar[TaskContext | None] = ContextVar("stem_current_task", default=None)


def current_task() -> TaskContext:
    """The context of the task that runs here.

    Raises:
        UsageError: no task runs here. A thread started by a task knows its task only when run in a copy of its context.
    """
    context = _current.get()
    if context is None:
        raise UsageError("current_task() was called outside of a task; it works in the functions that a worker runs")
    return context


def find_task() -> TaskContext | None:
    """Like `current_task`, but None outside of a task."""
    return _current.get()


_worker_link: WorkerLink | None = None
_is_executor = False


def connect(link: WorkerLink | None) -> None:
    """Say that this process is an executor, and what leads to its worker; None: not yet known. For executors."""
    global _worker_link, _is_executor
    _worker_link, _is_executor = link, True


def is_executor() -> bool:
    """Whether this process is an executor. Any thread of it, whether it knows a task or not."""
    return _is_executor


def worker_link() -> WorkerLink:
    """The way to this executor's worker.

    Raises:
        UsageError: there is none: it is only being started, and imports the application.
    """
    if _worker_link is None:
        raise UsageError(
            "an executor that is only importing the application cannot enqueue on a memory broker: the program that started it "
            'does so already. Enqueue in functions, or under `if __name__ == "__main__"`.'
        )
    return _worker_link


def enter(context: TaskContext) -> Token[TaskContext | None]:
    """Make `context` the current one; for executors."""
    return _current.set(context)


def leave(token: Token[TaskContext | None]) -> None:
    """Undo `enter`."""
    _current.reset(token)


def log_fields() -> Mapping[str, Any]:
    """What a log line written here should say of the task; nothing outside of one."""
    context = _current.get()
    return {} if context is None else {"task": context.name, "id": context.id, "attempt": context.attempt}
