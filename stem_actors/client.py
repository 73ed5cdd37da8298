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
from stem_actors.codecs.msgpack import encode_envelope, fingerprint
from stem_actors.codecs.payload_types import PayloadTypes
from stem_actors.config import Settings
from stem_actors.errors import (
    BrokerUnavailable,
    BulkEnqueueError,
    DuplicateTask,
    MiddlewareError,
    ResultsDisabled,
    StemError,
    UsageError,
)
from stem_actors.metrics import Tally
from stem_actors.middleware.chain import AroundSync, call_through
from stem_actors.model.control import ControlCommand, broadcast_channel, encode_command, pack_revocation
from stem_actors.model.envelope import WIRE_VERSION, Envelope
from stem_actors.model.ids import new_task_id
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.moments import delay_until
from stem_actors.model.record import TaskRecord
from stem_actors.model.uniqueness import KEY, Claim, Uniqueness, chosen_key, is_kept_out
from stem_actors.ports import Message, ResultBackend, Revocation, Stores, TransactionalBroker

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

    `expires_in` counts from the enqueue, `expires_at` is a moment and wins; likewise `countdown` and `eta`. `connection`: the
    caller's, in whose transaction the task is stored.
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
    connection: Any = None
    unique: Uniqueness | None = None

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
    `patience` is how long a publication is repeated while the broker is away, in seconds. `tally` counts the duplicates of unique
    tasks, for a program that serves metrics of its own.
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
        self.tally = Tally()
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
        """Store one task durably and return its id; of one that is unique, the id of the task that holds its key.

        Raises:
            DuplicateTask: another holds its key, and its policy is to raise.
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
        others = self._store((message,), call.options.connection)
        if not others:
            return message.id
        self._withdraw({others[message.id]: message})
        return self._settled(call, message, others[message.id])

    def enqueue_many(self, calls: Iterable[Call[Any]]) -> list[str]:
        """Store tasks, up to 1,000 in each atomic step, and return their ids in order, as `enqueue` does.

        Middleware goes around each call's encoding here; all are published together when each has been through it.

        Raises:
            PayloadError: as `enqueue`; nothing was stored.
            BulkEnqueueError: a later step failed, or tasks whose policy is to raise are kept out by others; it says which ids are
                stored, unknown and missing.
            BrokerUnavailable, DuplicateTaskId, StorageFull: as `enqueue`, when there is but one step.
        """
        now = self._clock.now()
        messages: list[Message] = []
        unique: dict[str, tuple[Call[Any], Message]] = {}
        connections: list[Any] = []

        def add(call: Call[Any]) -> str:
            message = self._message(call, now)
            if not connections or connections[-1] is not call.options.connection:
                connections.append(call.options.connection)
            messages.append(message)
            if message.claim is not None:
                unique[message.id] = call, message
            return message.id

        for call in calls:
            if self._around:
                self._through_middleware(call, add)
            else:
                add(call)
        if len(connections) > 1:
            raise UsageError("calls that are enqueued together have one connection, or none")
        others: dict[str, str] = {}
        for start in range(0, len(messages), BULK):
            try:
                others.update(self._store(messages[start : start + BULK], connections[0]))
            except StemError as error:
                if len(messages) <= BULK or connections[0] is not None:
                    raise
                raise _bulk_error([message.id for message in messages], start, error) from error
        ids = [message.id for message in messages]
        return self._settled_many(ids, unique, others) if others else ids

    def _store(self, messages: Sequence[Message], connection: Any) -> Mapping[str, str]:
        """Publish, or inside the transaction of a caller's connection store, messages; what they came to as `Broker.publish`."""
        if connection is None:
            return self._open().sender.publish(messages)
        broker = self._open().stores.broker
        if not isinstance(broker, TransactionalBroker):
            raise UsageError("a task is enqueued inside a transaction on Postgres only: the broker is none")
        if any(message.claim is not None and message.claim.replaces for message in messages):
            raise UsageError("a unique task that replaces another cannot be enqueued inside a transaction")
        return broker.publish_within(connection, messages)

    # ------------------------------------------------------------ unique tasks

    def _settled_many(
        self, ids: Sequence[str], unique: Mapping[str, tuple[Call[Any], Message]], others: Mapping[str, str]
    ) -> list[str]:
        """The ids that calls came to, of which some met others that held their keys."""
        self._withdraw({other: unique[task_id][1] for task_id, other in others.items()})
        refused: list[str] = []
        came_to = {}
        for task_id, other in others.items():
            try:
                came_to[task_id] = self._settled(*unique[task_id], other)
            except DuplicateTask:
                refused.append(task_id)
        if refused:
            stored = [task_id for task_id in ids if came_to.get(task_id, task_id) == task_id and task_id not in refused]
            raise BulkEnqueueError(
                f"{len(refused):,} of {len(ids):,} tasks are unique, and others hold their keys; the rest is enqueued",
                stored,
                [],
                refused,
            )
        return [came_to.get(task_id, task_id) for task_id in ids]

    def _settled(self, call: Call[Any], message: Message, other: str) -> str:
        """The id that a call came to which met another that held its key."""
        claim = message.claim
        assert claim is not None, "only what claims a key is kept out"
        if not is_kept_out(message.id, claim, {message.id: other}):
            return message.id
        self.tally.count("stem_tasks_deduplicated_total", call.name, message.queue)
        facts = {"task": call.name, "queue": message.queue, "id": other, "unique_key": claim.key}
        _logger.info("task %s is not enqueued again: %s holds its key %s", call.name, other, claim.key, extra=facts)
        if call.options.unique is not None and call.options.unique.policy == "raise":
            raise DuplicateTask(
                f"task {call.name!r} is unique, and {other} holds its key {claim.key!r} in queue {message.queue!r}; nothing was "
                "enqueued. Wait for that one, or free the key with `stem task unique`.",
                claim.key,
                other,
            )
        return other

    def _withdraw(self, replaced: Mapping[str, Message]) -> None:
        """Cancel tasks (by id) that gave way to others, unless they run already.

        Afterwards, since the other way round a crash in between would lose both; this way it may leave both.
        """
        for task_id, message in replaced.items():
            if not is_kept_out(message.id, message.claim, {message.id: task_id}):
                try:
                    self.revoke((task_id,), reason=f"replaced by {message.id}")
                except StemError as error:
                    # The new one is stored, and that is what counts.
                    _logger.warning("task %s was replaced by %s, but will run as well: %s", task_id, message.id, error)

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
        claim = None
        if options.unique is not None:
            envelope, claim = self._claimed(envelope, options.unique)
        body = encode_envelope(envelope, self._max_bytes, self.payload_types)
        delay = 0.0
        if options.countdown is not None or options.eta is not None:
            delay = delay_until(options.countdown, options.eta, now)
        is_chosen = options.task_id is not None
        return Message(task_id, options.queue, options.priority, body, delay, options.visibility_timeout, None, is_chosen, claim)

    def _claimed(self, envelope: Envelope, unique: Uniqueness) -> tuple[Envelope, Claim]:
        """What a unique task claims, and the envelope that says so."""
        key = chosen_key(envelope.meta) or fingerprint(envelope, unique.headers, self.payload_types)
        window = unique.window if unique.scope == "window" else None
        return envelope._replace(meta={**envelope.meta, KEY: key}), Claim(key, unique.policy == "replace", window)

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

    def publish(self, messages: Sequence[Message]) -> Mapping[str, str]:
        """What the broker says of them: see `Broker.publish`."""
        with self._lock:
            self._number += 1
            try:
                return self._publish(self._name, self._number, messages)
            except BrokerUnavailable as error:
                return self._publish_again(messages, error)

    def _publish_again(self, messages: Sequence[Message], error: BrokerUnavailable) -> Mapping[str, str]:
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
