"""Every error of Stem, in one tree. The branch says who can act: the caller, the operator, or a retry.

StemError
├─ UsageError                  the caller: the program or command is wrong, nothing was done
│  ├─ ConfigError                 a setting, flag, variable or URL
│  ├─ TaskDefinitionError         a task registered twice, or with options that contradict each other
│  ├─ UnknownTask                 a name that no registered task has
│  ├─ MiddlewareError             a middleware that did not call the next, or did so twice
│  ├─ PayloadError                arguments or a result that cannot travel (type, size)
│  ├─ DuplicateTaskId             an id chosen by the producer that is in use
│  └─ DuplicateTask               a unique task whose key another task holds (policy `raise`)
├─ OperatorError               the operator: something around Stem needs a hand
│  ├─ StorageFull                 disk or server memory is full
│  ├─ StorageBroken               not a Stem database, wrong version, corrupt, not permitted
│  └─ ResultsDisabled             results are switched off, nothing to wait for
├─ BrokerUnavailable           a retry: the store is away or busy; what was asked may or may not have happened
├─ BulkEnqueueError            a retry, of what is not stored: a bulk enqueue failed halfway and says which ids are in
├─ MalformedMessage            bytes in a queue that are no message of ours; becomes a dead letter
├─ LeaseLost                   another consumer may hold the delivery now
├─ TaskError                   what a handle's `.get()` raises about its task
│  ├─ TaskFailed
│  ├─ TaskCancelled
│  └─ ResultTimeout               also a TimeoutError
└─ TaskInterrupt               raised inside a running task
   ├─ SoftTimeLimitExceeded       may be caught to clean up and finish
   ├─ TaskRevoked
   └─ TaskReleased                the worker is leaving; the task will run again elsewhere
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BrokerUnavailable",
    "BulkEnqueueError",
    "ConfigError",
    "DuplicateTask",
    "DuplicateTaskId",
    "LeaseLost",
    "MalformedMessage",
    "MiddlewareError",
    "OperatorError",
    "PayloadError",
    "ResultTimeout",
    "ResultsDisabled",
    "SoftTimeLimitExceeded",
    "StemError",
    "StorageBroken",
    "StorageFull",
    "TaskCancelled",
    "TaskDefinitionError",
    "TaskError",
    "TaskFailed",
    "TaskInterrupt",
    "TaskReleased",
    "TaskRevoked",
    "UnknownTask",
    "UsageError",
]


class StemError(Exception):
    """Base of all errors raised by Stem."""


class UsageError(StemError):
    """The program or command is wrong; nothing was done."""


class ConfigError(UsageError):
    """A setting, flag, environment variable or URL is wrong; the message names it."""


class TaskDefinitionError(UsageError):
    """A task cannot be registered as asked."""


class UnknownTask(UsageError):
    """No registered task has this name."""


class MiddlewareError(UsageError):
    """A middleware did not call the next, or did so twice."""


class PayloadError(UsageError):
    """Arguments or a result cannot travel: a type without a wire form, or too many bytes."""


class DuplicateTaskId(UsageError):
    """The id chosen by the producer belongs to a task that is pending or ended less than an hour ago."""


class DuplicateTask(UsageError):
    """A unique task was not enqueued, since another task holds its key. `task_id` is the other's."""

    def __init__(self, message: str, key: str = "", task_id: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.task_id = task_id


class OperatorError(StemError):
    """Something around Stem needs a hand."""


class StorageFull(OperatorError):
    """The disk or the server's memory is full; nothing was stored."""


class StorageBroken(OperatorError):
    """The store is not ours, too new, corrupt, or not permitted."""


class ResultsDisabled(OperatorError):
    """Results are switched off (`STEM_RESULT_BACKEND_URL=none`), so there is nothing to wait for."""


class BrokerUnavailable(StemError):
    """The store is away or busy. What was asked may or may not have happened; asking again is safe.

    `is_cut`: a connection ended under it. Perhaps another can be made, so the adapters ask once more what only reads.
    """

    is_cut = False


class BulkEnqueueError(StemError):
    """A bulk enqueue failed halfway, for the reason in `__cause__`.

    `stored`   ids of the tasks that are enqueued
    `unknown`  ids of which the broker's answer was lost
    `missing`  ids of the tasks that are not enqueued
    """

    def __init__(self, message: str, stored: Sequence[str], unknown: Sequence[str], missing: Sequence[str]) -> None:
        super().__init__(message)
        self.stored = stored
        self.unknown = unknown
        self.missing = missing


class MalformedMessage(StemError):
    """Bytes in a queue that are no message of ours.

    `reason` is the dead letter's: `malformed`, `too-large`, `unsupported-version` or `undecodable-args`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LeaseLost(StemError):
    """Another consumer may hold the delivery now: it must not be settled here."""


class TaskError(StemError):
    """What `.get()` raises about its task."""

    def __init__(self, task_id: str, message: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class TaskFailed(TaskError):
    """The task failed for good. `error_type` is the class name of what it raised, `stack` its traceback as text."""

    def __init__(self, task_id: str, message: str, error_type: str, stack: str | None) -> None:
        super().__init__(task_id, message)
        self.error_type = error_type
        self.stack = stack


class TaskCancelled(TaskError):
    """The task was revoked or expired before it ended."""


class ResultTimeout(TaskError, TimeoutError):
    """The task did not end in time; it may still do so."""


class TaskInterrupt(StemError):
    """Raised inside a running task to stop it."""


class SoftTimeLimitExceeded(TaskInterrupt):
    """The task ran longer than its soft time limit. Catch it to clean up and finish."""


class TaskRevoked(TaskInterrupt):
    """The task was revoked with `terminate`."""


class TaskReleased(TaskInterrupt):
    """The worker is leaving; the task is handed back and will run again elsewhere, uncharged."""
