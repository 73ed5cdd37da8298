"""The client: enqueues what the generator planned, at its pace, and writes down what became of each call.

Several threads share the plan, each with connections of its own, so that one which waits for a broker does not hold up the
others. What is known of every task it asked for is kept here, for the observer: ids alone, so that hours of it fit into memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from stem_actors import Call, Stem
from stem_actors.adapters import open_configured
from stem_actors.client import Client
from stem_actors.clock import SystemClock
from stem_actors.config import Settings
from stem_actors.errors import DuplicateTaskId, OperatorError, StemError, StorageFull, UsageError
from stem_actors.ports import Broker, Message, Stores
from stem_chaos.generator import Planned
from stem_chaos.history import Phase, Recorder, Verb

__all__ = ["ChaosClient", "Tally"]

_PATIENCE = 5.0  # seconds for which a call is repeated by Stem's client before it is given up
_PAUSE = 0.2  # seconds before one that is insisted on is made again
_LEAVING = 30.0  # seconds for calls under way to end: the patience, and an answer that does not come


@dataclass(frozen=True, slots=True)
class Tally:
    """How the calls went so far."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0


class ChaosClient:
    """Calls the tasks of `target`, with a thread for each of the settings. `start` once, then `stop`; `close` in the end.

    `accepted`, `unknown`  ids of tasks that are stored for certain, and of those that may be
    `broken`               the error of a call that can never succeed, such as arguments that cannot travel: there are no more
                           calls then, and `is_broken` is set
    """

    def __init__(self, target: Stem, senders: Sequence[Settings], recorder: Recorder) -> None:
        self._recorder = recorder
        self._producers = [_Producer(target, settings, recorder) for settings in senders]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self.is_broken = threading.Event()
        self._plan: Iterator[Planned] = iter(())
        self._phases: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self._fresh: list[str] = []
        self.accepted: set[str] = set()
        self.unknown: set[str] = set()
        self.queues: set[str] = {queue for settings in senders for queue in settings.worker_queues}
        self.broken: StemError | None = None

    @property
    def tally(self) -> Tally:
        return Tally(self._phases[Phase.OK], self._phases[Phase.FAIL], self._phases[Phase.INFO])

    def start(self, plan: Iterator[Planned]) -> None:
        """Begin to make the calls; the plan's times count from now."""
        self._plan, began = plan, time.monotonic()
        for number, producer in enumerate(self._producers, 1):
            name = f"chaos-client-{number}"
            self._threads.append(threading.Thread(target=self._send, args=(producer, began), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Make no more calls, and wait for those under way."""
        self._is_stopped.set()
        deadline = time.monotonic() + _LEAVING
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._is_stopped.set()
        for producer in self._producers:
            producer.close()

    @property
    def has_fresh(self) -> bool:
        """Whether tasks were accepted that nobody has taken yet."""
        return bool(self._fresh)

    def adopt(self, task_id: str, phase: Phase) -> None:
        """Count a call that another producer made and wrote down itself."""
        with self._lock:
            self._phases[phase] += 1
            self._note(task_id, phase)

    def take_fresh(self) -> list[str]:
        """Ids of tasks that were accepted since this was last asked for."""
        with self._lock:
            fresh, self._fresh = self._fresh, []
        return fresh

    # ------------------------------------------------------------ the threads

    def _send(self, producer: _Producer, began: float) -> None:
        while (planned := self._next()) is not None:
            if self._is_stopped.wait(max(0.0, began + planned.at - time.monotonic())):
                break
            phase = self._make(producer, planned)
            while phase is Phase.INFO and planned.operation.insists and not self._is_stopped.wait(_PAUSE):
                phase = self._make(producer, planned)

    def _next(self) -> Planned | None:
        with self._lock:
            return None if self.broken is not None else next(self._plan, None)

    def _make(self, producer: _Producer, planned: Planned) -> Phase:
        made = producer.enqueue(planned)
        phase = made.phase
        with self._lock:
            if made.error is not None and isinstance(made.error, DuplicateTaskId) and made.task_id in self.unknown:
                phase = Phase.OK  # the call whose answer was lost had stored it
            self._phases[phase] += 1
            if isinstance(made.error, UsageError) and not isinstance(made.error, DuplicateTaskId):
                self.broken = made.error
                self.is_broken.set()
            if made.message is not None:
                self.queues.add(made.message.queue)
            if made.task_id is not None:
                self._note(made.task_id, phase)
        if made.call_number is not None:
            error = {} if made.error is None else {"error": type(made.error).__name__, "message": str(made.error)}
            self._recorder.write(Verb.ENQUEUE, phase, made.call_number, task_id=made.task_id, **made.detail, **error)
        return phase

    def _note(self, task_id: str, phase: Phase) -> None:
        if phase is Phase.OK and task_id not in self.accepted:
            self.accepted.add(task_id)
            self.unknown.discard(task_id)
            self._fresh.append(task_id)
        elif phase is Phase.INFO and task_id not in self.accepted:
            self.unknown.add(task_id)


@dataclass(frozen=True, slots=True)
class _Made:
    """A call that was made. Without a number and an id it did not get as far as the broker."""

    phase: Phase
    error: StemError | None
    call_number: int | None
    message: Message | None
    detail: Mapping[str, Any]

    @property
    def task_id(self) -> str | None:
        return None if self.message is None else self.message.id


class _Producer:
    """An application that enqueues, for one thread. Writes an invocation down at the moment it goes to the broker."""

    def __init__(self, target: Stem, settings: Settings, recorder: Recorder) -> None:
        self._settings = settings
        self._recorder = recorder
        self._app = Stem(settings=settings)
        self._app.registry, self._app.payload_types = target.registry, target.payload_types
        self._app.client = Client(self._connect, settings, patience=_PATIENCE, payload_types=target.payload_types)
        self._app.client.add_middleware(self._around)
        self._detail: dict[str, Any] = {}
        self._call_number: int | None = None
        self._message: Message | None = None

    def close(self) -> None:
        self._app.close()

    def enqueue(self, planned: Planned) -> _Made:
        operation = planned.operation
        self._call_number = self._message = None
        self._detail = {
            "workload": planned.workload,
            "task": operation.task,
            "args": operation.args,
            "expects": operation.expects,
        }
        error: StemError | None = None
        try:
            self._app.enqueue_by_name(operation.task, operation.args, operation.kwargs, **operation.options)
        except StemError as raised:
            error = raised
        return _Made(_phase(error), error, self._call_number, self._message, self._detail)

    def _around(self, call: Call[Any], call_next: Any) -> Any:
        options = call.options
        self._detail["max_retries"] = options.max_retries
        if options.expires_in is not None or options.expires_at is not None:
            self._detail["expires_at"] = options.expires_at or time.time() + (options.expires_in or 0.0)
        return call_next(call)

    def _connect(self) -> Stores:
        stores = open_configured(self._settings, SystemClock())
        # The id of a task that its producer did not choose is known only here, if the answer is lost.
        return replace(stores, broker=cast(Broker, _Announced(stores.broker, self._announce)))

    def _announce(self, messages: Sequence[Message]) -> None:
        if self._message is None:  # else Stem's client repeats it
            (self._message,) = messages
            message = self._message
            self._detail |= {"queue": message.queue, "priority": message.priority, "delay": message.delay}
            if self._settings.broker_url.find("wait_replicas=") >= 0:
                self._detail["is_replicated"] = True
            self._call_number = self._recorder.invoke(Verb.ENQUEUE, task_id=message.id, **self._detail)


class _Announced:
    """A broker whose publications are announced before they are made."""

    def __init__(self, broker: Broker, announce: Any) -> None:
        self._broker = broker
        self._announce = announce

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        self._announce(messages)
        return self._broker.publish(sender, number, messages)


def _phase(error: StemError | None) -> Phase:
    match error:
        case None:
            return Phase.OK
        case UsageError() | StorageFull():
            return Phase.FAIL
        case OperatorError() | _:
            return Phase.INFO
