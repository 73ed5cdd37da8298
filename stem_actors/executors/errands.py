"""Errands: what an executor has its worker do at a broker that lives in the worker's own process (memory).

Both ends of one small language. `stores_through` gives an application in an executor stores whose every call is an errand;
`run_errand` does it, in the settler, which has the broker. What has no errand raises `UsageError`: there never is a second,
empty queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any, NoReturn, Protocol, cast

import msgpack

from stem_actors import errors
from stem_actors.errors import BrokerUnavailable, StemError, UsageError
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import ErrorInfo
from stem_actors.model.record import TaskRecord
from stem_actors.model.uniqueness import Claim
from stem_actors.ports import (
    Broker,
    ControlBus,
    HeartbeatStore,
    LockStore,
    Message,
    PauseStore,
    RateLimiter,
    ResultBackend,
    RevokeStore,
    Stores,
)

__all__ = ["Errand", "WorkerLink", "answer_of", "run_errand", "stores_through"]

PATIENCE = 5.0
"""Seconds an executor waits for its worker; the client then asks again, which adds nothing that was stored."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


class Errand(IntEnum):
    PUBLISH = 0  # [sender, number, [Message as a list, …]] → {id: the id of the task that keeps it out or that it replaces}
    RECORDS = 1  # [task id, …] → [record as a list, or None, …]


class WorkerLink(Protocol):
    """An executor's way to its worker."""

    def ask(self, errand: Errand, payload: Any, timeout: float) -> Any:
        """Have it done and wait for the answer, from any thread of the executor.

        Raises:
            BrokerUnavailable: no answer within `timeout` seconds; it may be done or not.
        """
        ...


# ---------------------------------------------------------------- in the executor


def stores_through(find_link: Callable[[], WorkerLink], has_results: bool) -> Stores:
    """Stores that can do what there are errands for."""
    results = cast(ResultBackend, _ResultsThroughWorker(find_link)) if has_results else None
    return Stores(
        broker=cast(Broker, _BrokerThroughWorker(find_link)),
        results=results,
        revocations=cast(RevokeStore, _OutOfReach("revoking")),
        pauses=cast(PauseStore, _OutOfReach("pausing queues")),
        locks=cast(LockStore, _OutOfReach("locking")),
        rate_limits=cast(RateLimiter, _OutOfReach("limiting rates")),
        heartbeats=cast(HeartbeatStore, _OutOfReach("looking at workers")),
        control=cast(ControlBus, _OutOfReach("controlling workers")),
        settles_results=True,
        names={"broker": "memory:// (through the worker)"},
    )


def answer_of(error: Any, payload: Any) -> Any:
    """What a reply says: the answer, or an error to raise."""
    if error is not None:
        name, text = error
        known = getattr(errors, str(name), None)
        raise (known if known in (errors.DuplicateTaskId, errors.StorageFull, BrokerUnavailable, UsageError) else StemError)(text)
    return msgpack.unpackb(payload, timestamp=3, strict_map_key=False)


class _OutOfReach:
    """What an executor has no way to where the broker is its worker's memory."""

    def __init__(self, what: str) -> None:
        self._what = what

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> NoReturn:
        raise UsageError(
            f"{self._what} (`{name}`) does not work inside a task where the broker is memory://, which lives in the program that "
            "started the worker. Do it there, or use sqlite:///stem.db."
        )


class _BrokerThroughWorker(_OutOfReach):
    def __init__(self, find_link: Callable[[], WorkerLink]) -> None:
        super().__init__("this use of the broker")
        self._find_link = find_link

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        fields = [[getattr(message, name) for name in _MESSAGE_FIELDS] for message in messages]
        return dict(self._find_link().ask(Errand.PUBLISH, [sender, number, fields], PATIENCE))


class _ResultsThroughWorker(_OutOfReach):
    def __init__(self, find_link: Callable[[], WorkerLink]) -> None:
        super().__init__("this use of results")
        self._find_link = find_link

    def get(self, task_id: str) -> TaskRecord | None:
        return self._records([task_id])[0]

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        """By asking again and again: the settler that answers must not wait for anybody's task."""
        end, pause = time.monotonic() + timeout, _FIRST_PAUSE
        while True:
            found = [record for record in self._records(task_ids) if record is not None and record.state.is_final]
            left = end - time.monotonic()
            if len(found) == len(task_ids) or left <= 0:
                return {record.id: record for record in found}
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _records(self, task_ids: Sequence[str]) -> list[TaskRecord | None]:
        return [_record(fields) for fields in self._find_link().ask(Errand.RECORDS, list(task_ids), PATIENCE)]


def _record(fields: Any) -> TaskRecord | None:
    if fields is None:
        return None
    named = dict(zip(TaskRecord._fields, fields, strict=True))
    error = None if named["error"] is None else ErrorInfo(*named["error"])
    return TaskRecord(**{**named, "state": TaskState(named["state"]), "error": error})


# ---------------------------------------------------------------- in the worker


def run_errand(errand: int, payload: Any, broker: Broker, results: ResultBackend | None) -> tuple[list[str] | None, bytes]:
    """Do what an executor asked for; the error as class name and text, or the answer, packed. Never raises for its content."""
    try:
        answer: Any = None
        match Errand(errand):
            case Errand.PUBLISH:
                sender, number, messages = payload
                answer = dict(broker.publish(sender, number, [_message(fields) for fields in messages]))
            case Errand.RECORDS:
                answer = [_fields(None if results is None else results.get(task_id)) for task_id in payload]
        return None, msgpack.packb(answer, datetime=True, default=str)
    except (StemError, ValueError, TypeError) as error:
        return [type(error).__name__, str(error)], b""


def _message(fields: Sequence[Any]) -> Message:
    message = Message(*fields)
    return message if message.claim is None else replace(message, claim=Claim(*message.claim))


def _fields(record: TaskRecord | None) -> list[Any] | None:
    if record is None:
        return None
    error = record.error
    fields: list[Any] = list(record)
    fields[record._fields.index("error")] = None if error is None else [getattr(error, name) for name in _ERROR_FIELDS]
    return fields


_MESSAGE_FIELDS = tuple(Message.__dataclass_fields__)
_ERROR_FIELDS = ("type", "message", "stack", "meta")
