"""Tasks: a name, a function and options; and the registry of an application."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from stem_actors.errors import TaskDefinitionError, UnknownTask
from stem_actors.model.concurrency import MOST_PLACES
from stem_actors.model.rate import parse_rate
from stem_actors.model.retry import RetryPolicy
from stem_actors.model.uniqueness import Uniqueness, UniquePolicy, UniqueScope

__all__ = ["FailureMode", "TaskDefinition", "TaskOptions", "TaskRegistry"]


FailureMode: TypeAlias = Literal["fail_open", "fail_closed"]
"""What holds while the rate limiter does not answer: tasks run without limit, or wait."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What is fixed about a task when it is defined. Durations in seconds; None: the application's default.

    `acks_late`  False: acknowledged when it starts, so that it runs once at most, and never again whatever becomes of it
    `exclusive`  stopped before its lease can run out while renewal goes unanswered
    `rate_limit` how often it starts: `10/s`, `100/m`, `5/h`; counted apart for each value of the header `tenant`
    `group_rate_limit`  how often all tasks of a group start together; the group is `group_rate_key`, else what the call's header
                 `group_rate_key_header` says
    `rate_limit_failure_mode`, `group_rate_limiter_failure_mode`  while the limit cannot be asked for: `fail_open`, it runs, or
                 `fail_closed`, it waits
    `concurrency_limit`  how many of it run at the same time, in all workers together; counted apart for each `concurrency_key`, a
                 text that tasks may share, or each value of the header `concurrency_key_header`
    `unique`     enqueued only while no other with the same arguments waits or runs; `unique_headers` names headers that count too
    `unique_policy`  what an enqueue comes to meanwhile: `reject`, the other's id; `replace`, it takes the other's place; `raise`
    `unique_scope`   `until_done`, `until_started`, or `window`: `unique_for` seconds from the enqueue on (the default with these)
    """

    queue: str | None = None
    max_retries: int | None = None
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    priority: int = 0
    visibility_timeout: float | None = None
    exclusive: bool = False
    acks_late: bool = True
    ignore_result: bool = False
    retry_policy: RetryPolicy | None = None
    rate_limit: str | None = None
    rate_limit_failure_mode: FailureMode = "fail_open"
    group_rate_limit: str | None = None
    group_rate_key: str | None = None
    group_rate_key_header: str = "tenant"
    group_rate_limiter_failure_mode: FailureMode = "fail_open"
    concurrency_limit: int | None = None
    concurrency_key: str | None = None
    concurrency_key_header: str | None = None
    unique: bool = False
    unique_for: float | None = None
    unique_headers: Sequence[str] = ()
    unique_policy: UniquePolicy = "reject"
    unique_scope: UniqueScope | None = None
    description: str = ""
    tags: Sequence[str] = ()
    idempotent: bool = False

    def __post_init__(self) -> None:
        soft, hard = self.soft_time_limit, self.hard_time_limit
        if (soft is not None and soft <= 0) or (hard is not None and hard <= 0):
            raise TaskDefinitionError("a time limit is a number of seconds above 0")
        if soft is not None and hard is not None and soft >= hard:
            raise TaskDefinitionError(f"the soft time limit ({soft} s) must end before the hard one ({hard} s)")
        if self.max_retries is not None and self.max_retries < 0:
            raise TaskDefinitionError("max_retries is a number from 0")
        for rate in (self.rate_limit, self.group_rate_limit):
            if rate is not None:
                parse_rate(rate)
        for mode in (self.rate_limit_failure_mode, self.group_rate_limiter_failure_mode):
            if mode not in get_args(FailureMode):
                raise TaskDefinitionError(f"{mode!r} is no failure mode of a rate limit: fail_open or fail_closed")
        if self.concurrency_limit is None:
            if self.concurrency_key is not None or self.concurrency_key_header is not None:
                raise TaskDefinitionError("a concurrency key is given without a concurrency_limit")
        elif isinstance(self.concurrency_limit, bool) or not 1 <= self.concurrency_limit <= MOST_PLACES:
            raise TaskDefinitionError(f"concurrency_limit is a number from 1 to {MOST_PLACES:,}")
        _ = self.uniqueness

    @property
    def uniqueness(self) -> Uniqueness | None:
        """How it is unique, if it is."""
        return Uniqueness.asked(self.unique, self.unique_for, self.unique_headers, self.unique_policy, self.unique_scope)


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A registered task."""

    name: str
    function: Callable[..., Any]
    options: TaskOptions
    is_async: bool


@dataclass(slots=True)
class TaskRegistry:
    """The tasks of one application by name. Filled while modules are imported, read afterwards."""

    _tasks: dict[str, TaskDefinition] = field(default_factory=dict)

    def add(self, name: str, function: Callable[..., Any], options: TaskOptions) -> TaskDefinition:
        """Register a function or coroutine function.

        Raises:
            TaskDefinitionError: the name is taken by another function.
        """
        known = self._tasks.get(name)
        if known is not None and not _is_same_source(known.function, function):
            raise TaskDefinitionError(f"task {name!r} is already registered by {known.function.__module__}; choose another name")
        definition = TaskDefinition(name, function, options, inspect.iscoroutinefunction(function))
        self._tasks[name] = definition
        return definition

    def get(self, name: str) -> TaskDefinition:
        """The task called `name`, or `UnknownTask`."""
        try:
            return self._tasks[name]
        except KeyError:
            known = ", ".join(sorted(self._tasks)) or "none"
            raise UnknownTask(f"no task is called {name!r}; known: {known}") from None

    def find(self, name: str) -> TaskDefinition | None:
        return self._tasks.get(name)

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


def _is_same_source(known: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """A script's functions exist twice when it is imported again under another module name."""
    known_code, new_code = getattr(known, "__code__", None), getattr(new, "__code__", None)
    if known_code is None or new_code is None:
        return known is new
    return (known_code.co_filename, known_code.co_firstlineno) == (new_code.co_filename, new_code.co_firstlineno)
