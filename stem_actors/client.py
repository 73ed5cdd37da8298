"""The producer's side: a `Call` becomes an envelope, then bytes, then a message that the broker has stored. Composition only.

Owns the sender: the numbers which let a broker tell a repeated publication from a new one. What travels is `codecs`' business,
where it is kept the broker's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from stem_actors.clock import Clock, SystemClock
from stem_actors.codecs.msgpack import encode_envelope
from stem_actors.codecs.payload_types import PayloadTypes
from stem_actors.config import Settings
from stem_actors.errors import BrokerUnavailable, BulkEnqueueError, MiddlewareError, ResultsDisabled, StemError
from stem_actors.middleware.chain import AroundSync, call_through
from stem_actors.model.control import ControlCommand, broadcast_channel, encode_command, pack_revocation
from stem_actors.model.envelope import WIRE_VERSION, Envelope
from stem_actors.model.ids import new_task_id
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.moments import delay_until
from stem_actors.model.record import TaskRecord
from stem_actors.ports import Message, ResultBackend, Revocation, Stores

__all__ = ["Call", "CallOptions", "Client"]

R_co = TypeVar("R_co", covariant=True)

BULK = 1000  # messages in one publication
REVOCATION_TTL = 7 * 86400.0
COMMAND_TTL = 60.0
_WAIT = 30.0  # seconds one wait at the result backend lasts at most, so that a waiting thread can be interrupted
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0

_logger = logging.getLogger("stem.client")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """All about a call but its arguments, with defaults filled in. Durations and moments in seconds.

    `expires_in` counts from the enqueue, `expires_at` is a moment and wins; likewise `countdown` and `eta`.
    """

    queue: str
    priority: int
    max_retries: int
    visibility_timeout: float | None
    headers: Mapping[str, str]
    meta: Mapping[str, Any]
    countdown: float | None = None
    eta: float | None = None
    expires_in: float | None = None
    expires_at: float | None = None
    task_id: str | None = None

    def with_headers(self, headers: Mapping[str, str]) -> CallOptions:
        """These options with further headers; for middleware, as `call._replace(options=call.options.with_headers(…))`."""
        return replace(self, headers={**self.headers, **headers})


class Call(NamedTuple, Generic[R_co]):
    """A call of a task that is not sent yet; `R_co` is what the task returns. Made by `Task.call`."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: CallOptions


class Client:
    """Enqueues, looks up, waits for and revokes tasks. Any thread may use it; a forked child may go on using it.

    `connect` opens the stores at the first use, and once more in a forked child, which must not share its parent's connections.
    `patience` is how long a publication is repeated while the broker is away, in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Stores],
        settings: Settings,
        clock: Clock | None = None,
        patience: float = 10.0,
        pause: Callable[[float], None] = time.sleep,
        payload_types: PayloadTypes | None = None,
    ) -> None:
        self._connect = connect
        self.payload_types = payload_types
        self._channels = settings.channel_namespace
        self._max_bytes = settings.max_payload_bytes
        self._clock = clock or SystemClock()
        self._patience = patience
        self._pause = pause
        self._around: list[AroundSync] = []
        self._opening = threading.Lock()
        self._session: _Session | None = None
        self._detour: _Detour | None = None

    @property
    def stores(self) -> Stores:
        """The stores, opened now if they are not."""
        return self._open().stores

    def close(self) -> None:
        """Close the stores. Idempotent; the next use opens them again."""
        with self._opening:
            session, self._session = self._session, None
        if session is not None and session.process == os.getpid():
            session.stores.close()

    # ------------------------------------------------------------ enqueue

    def add_middleware(self, function: AroundSync) -> None:
        """Put `(call, call_next) -> id` around every enqueue, inside of those that are there."""
        self._around.append(function)

    def enqueue(self, call: Call[Any]) -> str:
        """Store one task durably and return its id.

        Raises:
            PayloadError: an argument cannot travel.
            DuplicateTaskId: the chosen id is in use.
            BrokerUnavailable: no answer within the client's patience; the task may or may not be stored.
            StorageFull: it is not stored.
            MiddlewareError: a middleware did not do its part.
        """
        if self._around:
            return self._through_middleware(call, self._publish)
        return self._publish(call)

    def _publish(self, call: Call[Any]) -> str:
        message = self._message(call, self._clock.now())
        self._open().sender.publish((message,))
        return message.id

    def enqueue_many(self, calls: Iterable[Call[Any]]) -> list[str]:
        """Store tasks, up to 1,000 in each atomic step, and return their ids in order.

        Middleware goes around each call's encoding here; all are published together when each has been through it.

        Raises:
            PayloadError: as `enqueue`; nothing was stored.
            BulkEnqueueError: a later step failed; it says which ids are stored, unknown and missing.
            BrokerUnavailable, DuplicateTaskId, StorageFull: as `enqueue`, when there is but one step.
        """
        now = self._clock.now()
        messages: list[Message] = []

        def add(call: Call[Any]) -> str:
            messages.append(self._message(call, now))
            return messages[-1].id

        for call in calls:
            if self._around:
                self._through_middleware(call, add)
            else:
                add(call)
        sender = self._open().sender if messages else None
        for start in range(0, len(messages), BULK):
            assert sender is not None
            try:
                sender.publish(messages[start : start + BULK])
            except StemError as error:
                if len(messages) <= BULK:
                    raise
                raise _bulk_error([message.id for message in messages], start, error) from error
        return [message.id for message in messages]

    def _through_middleware(self, call: Call[Any], innermost: Callable[[Call[Any]], str]) -> str:
        task_id = call_through(self._around, call, innermost, "enqueue the task")
        if not isinstance(task_id, str):
            raise MiddlewareError(f"middleware returned {task_id!r} in place of the id that the next one gave it")
        return task_id

    def _message(self, call: Call[Any], now: float) -> Message:
        name, args, kwargs, options = call
        task_id = options.task_id or new_task_id()
        expires_at = options.expires_at
        if expires_at is None and options.expires_in is not None:
            expires_at = now + options.expires_in
        envelope = Envelope(
            WIRE_VERSION,
            task_id,
            name,
            args,
            kwargs,
            options.headers,
            now,
            expires_at,
            options.priority,
            options.max_retries,
            options.visibility_timeout,
            options.queue,
            options.meta,
        )
        body = encode_envelope(envelope, self._max_bytes, self.payload_types)
        delay = 0.0
        if options.countdown is not None or options.eta is not None:
            delay = delay_until(options.countdown, options.eta, now)
        return Message(
            task_id, options.queue, options.priority, body, delay, options.visibility_timeout, None, options.task_id is not None
        )

    # ------------------------------------------------------------ results

    def record(self, task_id: str) -> TaskRecord:
        """The task's record; a task without one is `queued` (also one that never was, or whose record's time is up).

        Raises:
            ResultsDisabled: results are switched off.
        """
        return self._results().get(task_id) or TaskRecord(task_id, TaskState.QUEUED)

    def wait(self, task_id: str, timeout: float | None) -> TaskRecord | None:
        """The final record, or None when there is none within `timeout` seconds. None waits for ever; raises like `record`."""
        results = self._results()
        end = None if timeout is None else self._clock.monotonic() + timeout
        while True:
            left = _WAIT if end is None else max(0.0, end - self._clock.monotonic())
            record = results.wait((task_id,), min(left, _WAIT)).get(task_id)
            if record is not None or (end is not None and left <= _WAIT):
                return record

    def _results(self) -> ResultBackend:
        results = self._open().stores.results
        if results is None:
            raise ResultsDisabled(
                "results are switched off (STEM_RESULT_BACKEND_URL=none), so nothing is known of the task. Name a result backend."
            )
        return results

    # ------------------------------------------------------------ revocation

    def revoke(self, task_ids: Sequence[str], terminate: bool = False, reason: str | None = None) -> None:
        """Ask for tasks to be cancelled. Durable when it returns; workers are told at once, and find out within 10 s at worst."""
        stored = self.store_revocations(task_ids, terminate, reason)
        stores = self._open().stores
        expires_at = stores.broker.now() + COMMAND_TTL
        command = ControlCommand(new_task_id(), "revoke", payload=self.revoke_payload(stored), expires_at=expires_at)
        try:
            stores.control.send(broadcast_channel(self._channels), encode_command(command), COMMAND_TTL)
        except BrokerUnavailable as error:
            # It is stored, and that is what counts: every worker looks there by itself.
            _logger.warning("workers could not be told of a revocation and will find it in the store: %s", error)

    def store_revocations(
        self,
        task_ids: Sequence[str],
        terminate: bool = False,
        reason: str | None = None,
        requester: str | None = None,
        lasts: float | None = None,
    ) -> list[Revocation]:
        """Write down that tasks are revoked, for `lasts` seconds (default: 7 days), and tell nobody yet."""
        stores = self._open().stores
        now = stores.broker.now()  # workers judge by the server's clock, whatever ours says
        until = now + (REVOCATION_TTL if lasts is None else lasts)
        by = requester or _this_process()
        return stores.revocations.upsert_all([Revocation(task_id, terminate, reason, by, now, until) for task_id in task_ids])

    def revoke_payload(self, stored: Sequence[Revocation], requester: str | None = None) -> dict[str, Any]:
        """What a `revoke` command says of revocations that are stored."""
        return {
            "namespace": self._channels,
            "requester": requester or _this_process(),
            "revocations": [pack_revocation(revocation) for revocation in stored],
        }

    # ------------------------------------------------------------ stores

    @contextlib.contextmanager
    def diverted(
        self, connect: Callable[[Hashable], Stores], who: Callable[[], Hashable], clock: Clock, pause: Callable[[float], None]
    ) -> Iterator[None]:
        """Work on other stores and by another clock for as long as the block lasts: for simulations, on one thread.

        `who` says which of the processes that are played asks; each has stores and a sender of its own, as real ones have.
        """
        kept = self._clock, self._detour
        self._clock, self._detour = clock, _Detour(connect, who, clock, self._patience, pause)
        try:
            yield
        finally:
            self._clock, self._detour = kept

    def _open(self) -> _Session:
        if self._detour is not None:
            return self._detour.session()
        session = self._session
        if session is not None and session.process == os.getpid():
            return session
        if session is not None:
            # Forked. The parent's stores are kept, not closed nor collected: either could touch files that the parent is using.
            # The lock is a new one, since a thread that held it in the parent is not here to release it.
            _inherited.append(session)
            self._opening = threading.Lock()
            self._session = None
        with self._opening:
            if self._session is None:
                stores = self._connect()
                self._session = _Session(os.getpid(), stores, _Sender(stores, self._clock, self._patience, self._pause))
            return self._session


@dataclass(frozen=True, slots=True)
class _Session:
    """What must not outlive a fork."""

    process: int
    stores: Stores
    sender: _Sender


_inherited: list[_Session] = []


class _Detour:
    """Sessions by who asks, in place of the client's own."""

    def __init__(
        self,
        connect: Callable[[Hashable], Stores],
        who: Callable[[], Hashable],
        clock: Clock,
        patience: float,
        pause: Callable[[float], None],
    ) -> None:
        self._connect = connect
        self._who = who
        self._sending = clock, patience, pause
        self._sessions: dict[Hashable, _Session] = {}

    def session(self) -> _Session:
        who = self._who()
        if who not in self._sessions:
            stores = self._connect(who)
            self._sessions[who] = _Session(os.getpid(), stores, _Sender(stores, *self._sending))
        return self._sessions[who]


class _Sender:
    """Publishes under one name with growing numbers, one publication at a time, each repeated until the broker has answered."""

    def __init__(self, stores: Stores, clock: Clock, patience: float, pause: Callable[[float], None]) -> None:
        self._publish = stores.broker.publish
        self._clock = clock
        self._patience = patience
        self._pause = pause
        self._name = new_task_id()
        self._number = 0
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._number += 1
            try:
                self._publish(self._name, self._number, messages)
            except BrokerUnavailable as error:
                self._publish_again(messages, error)

    def _publish_again(self, messages: Sequence[Message], error: BrokerUnavailable) -> None:
        """Repeat with the same number, which adds nothing if the first try was stored and only its answer was lost."""
        end = self._clock.monotonic() + self._patience
        longest = _FIRST_PAUSE
        while True:
            pause = longest * random.uniform(0.5, 1.0)
            if self._clock.monotonic() + pause > end:
                raise error
            self._pause(pause)
            longest = min(longest * 2, _LONGEST_PAUSE)
            try:
                return self._publish(self._name, self._number, messages)
            except BrokerUnavailable as again:
                error = again


def _bulk_error(ids: Sequence[str], start: int, error: StemError) -> BulkEnqueueError:
    """What is known when the publication that begins at `start` failed with `error`."""
    end = start + BULK if isinstance(error, BrokerUnavailable) else start
    stored, unknown, missing = ids[:start], ids[start:end], ids[end:]
    return BulkEnqueueError(
        f"enqueued {len(stored):,} of {len(ids):,} tasks, then: {error} "
        f"({len(unknown):,} may be enqueued or not, {len(missing):,} are not)",
        stored,
        unknown,
        missing,
    )


def _this_process() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"
