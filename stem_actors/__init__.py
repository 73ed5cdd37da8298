"""Stem: background tasks, at least once, run by supervised actors.

These are the public names. Each is imported when it is first asked for: `import stem_actors` costs nothing, and an executor or a
producer loads only what it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stem_actors.app import AsyncTask, Handle, Stem, Task
    from stem_actors.client import Call
    from stem_actors.config import Settings
    from stem_actors.errors import (
        BrokerUnavailable,
        BulkEnqueueError,
        ConfigError,
        DuplicateTask,
        DuplicateTaskId,
        MiddlewareError,
        PayloadError,
        ResultsDisabled,
        ResultTimeout,
        SoftTimeLimitExceeded,
        StemError,
        StorageFull,
        TaskCancelled,
        TaskDefinitionError,
        TaskError,
        TaskFailed,
        TaskInterrupt,
        TaskReleased,
        TaskRevoked,
        UnknownTask,
        UsageError,
    )
    from stem_actors.executors.context import TaskContext, current_task
    from stem_actors.middleware.chain import Middleware
    from stem_actors.model.lifecycle import TaskState
    from stem_actors.model.retry import RetryPolicy
    from stem_actors.supervision import ChildSpec, StemActor, Supervisor

__all__ = [
    # define and enqueue tasks
    "Stem",
    "Settings",
    "Task",
    "AsyncTask",
    "Call",
    "Handle",
    "TaskState",
    "RetryPolicy",
    "Middleware",
    # inside a task
    "current_task",
    "TaskContext",
    # actors of your own
    "StemActor",
    "Supervisor",
    "ChildSpec",
    # errors
    "StemError",
    "UsageError",
    "ConfigError",
    "TaskDefinitionError",
    "UnknownTask",
    "PayloadError",
    "MiddlewareError",
    "DuplicateTask",
    "DuplicateTaskId",
    "BrokerUnavailable",
    "BulkEnqueueError",
    "StorageFull",
    "ResultsDisabled",
    "TaskError",
    "TaskFailed",
    "TaskCancelled",
    "ResultTimeout",
    "TaskInterrupt",
    "SoftTimeLimitExceeded",
    "TaskRevoked",
    "TaskReleased",
]

_HOMES = {
    "stem_actors.app": ("Stem", "Task", "AsyncTask", "Handle"),
    "stem_actors.client": ("Call",),
    "stem_actors.config": ("Settings",),
    "stem_actors.executors.context": ("current_task", "TaskContext"),
    "stem_actors.middleware.chain": ("Middleware",),
    "stem_actors.model.lifecycle": ("TaskState",),
    "stem_actors.model.retry": ("RetryPolicy",),
    "stem_actors.supervision": ("StemActor", "Supervisor", "ChildSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF.get(name, "stem_actors.errors")), name)
        globals()[name] = value  # the next use finds it without coming here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
