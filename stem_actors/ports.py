"""What Stem asks of its stores: every Protocol, each as small as its callers allow.

One rule for all: operations take and return batches; each item of a batch is settled on its own and answered on its own, in
order. Time is the server's clock. Any method may raise `BrokerUnavailable`, after which what was asked may or may not have
happened and may be asked again. Unless a method says otherwise it may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Handout, Lease, State
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.rate import Limit
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.model.uniqueness import Claim, HeldClaim

__all__ = [
    "Answer",
    "Broker",
    "ControlBus",
    "DeadLetterPage",
    "DeadTask",
    "Done",
    "HeartbeatStore",
    "Intake",
    "Lock",
    "LockStore",
    "Message",
    "Pause",
    "PauseStore",
    "QueueDepth",
    "RateLimiter",
    "RecordPage",
    "Refused",
    "ResultBackend",
    "Revocation",
    "RevokeStore",
    "Stale",
    "Stores",
    "Swept",
    "TransactionalBroker",
]


# ---------------------------------------------------------------- broker


@dataclass(frozen=True, slots=True)
class Message:
    """One task on its way into a broker. `body` is opaque to it; the fields beside it are what it sorts and looks up by.

    `delay`        seconds until it may be delivered, counted by the server from the moment it stores the message; ≤ 0: at once
    `is_chosen_id` the producer chose `id`: refused while that id is pending and for 1 h after its task has ended
    `claim`        the key of its queue that it holds until it has ended, or for a fixed time; None for all that are not unique
    """

    id: str
    queue: str
    priority: int
    body: bytes
    delay: float = 0.0
    visibility_timeout: float | None = None
    sig: bytes | None = None
    is_chosen_id: bool = False
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """It happened now, or had happened the first time this was asked."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Not this holder's lease any more; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The store will not take this item, whoever asks; nothing was changed for it."""

    error: str


Answer: TypeAlias = Done | Stale | Refused


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Counts of one queue. `oldest_age` is that of the message waiting longest, in seconds; None when none waits."""

    queue: str
    pending: int
    inflight: int
    delayed: int
    dead: int
    oldest_age: float | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did. `next_due`: seconds until the next message falls due; `skipped`: another swept just before.

    `replayed`: dead letters of each queue that were replayed since a sweep last told; one sweep tells of each.
    """

    promoted: int = 0
    reclaimed: int = 0
    poisoned: int = 0
    expired_dead_letters: int = 0
    next_due: float | None = None
    skipped: bool = False
    replayed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A task run set aside: its bytes unchanged, why, and when (seconds since the epoch)."""

    id: str
    queue: str
    body: bytes
    state: State | None
    reason: str
    meta: Mapping[str, Any]
    dead_at: float


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    entries: Sequence[DeadTask]
    next_offset: int | None = None


class Intake(Protocol):
    """The receiving end of a broker for one holder. `receive` is for one thread; `interrupt` for any."""

    def receive(self, limit: int, wait: float) -> list[Handout]:
        """Take up to `limit` deliveries, highest priority first, oldest first inside one.

        Returns at once when there is anything; else waits up to `wait` seconds for something to arrive, and returns empty
        when nothing did or when interrupted. One fetch in ten takes the lowest waiting priority first, so that none starves.
        A delivery is leased from the moment it is handed out, for its own visibility timeout or the broker's.
        """
        ...

    def interrupt(self) -> None:
        """Make a `receive` that is waiting, or else the next one that would wait, return at once."""
        ...

    def close(self) -> None:
        """Idempotent. What was handed out stays leased."""
        ...


class Broker(Protocol):
    """A durable queue of opaque messages with leases.

    A lease is fenced: only its own token and holder can settle or extend it. It ends when the broker gives the delivery to
    another, not when a clock says so: a late holder whom nobody replaced still extends and settles.
    """

    def publish(self, sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
        """Store all messages or none; durable when it returns.

        Each sender numbers its publications upwards from 1 and has one under way at a time. The last number is kept for
        10 minutes in the same step, so that repeating a publication whose answer was lost adds nothing.

        A message with a claim is stored with it, in the same step, and is left out where another task holds the key, unless it
        replaces that one, which then holds nothing any more and otherwise goes on as it was. Returns the other task's id by the
        message's, for each that was left out or replaced another; a repetition says the same again. A claim that does not last
        for a fixed time ends with its task, in the step that acknowledges, sets aside or purges it; whoever is not its owner
        any more ends nothing.

        Raises:
            DuplicateTaskId: an `is_chosen_id` message's id is in use; nothing was stored.
            StorageFull: nothing was stored.
        """
        ...

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        """Start receiving from `queues` as `holder` (an incarnation)."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        """End leases, and store the records that come with them in the same atomic step when this broker holds results.

        A record is refused without harm when a newer one is stored (see `ResultBackend.set_many`), and never written when
        its lease is stale. Repeating a settlement changes nothing and answers `Stale`.
        """
        ...

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        """Let each lease end a full visibility timeout from now. A lease that ran out and was given to nobody is still held."""
        ...

    def held(self, holder: str) -> list[Handout]:
        """What this holder has leases on, read without changing a count or a lease."""
        ...

    def mark_started(self, lease: Lease) -> Answer:
        """Note durably that a delivery which has lapsed before is about to start; what that makes of a lapse, see `sweep`."""
        ...

    def end_claims(self, leases: Sequence[Lease]) -> list[Answer]:
        """These deliveries are about to start, and hold their keys until then only."""
        ...

    def claims(self, key: str, queue: str | None = None) -> list[HeldClaim]:
        """Who holds a key: at most one task in each queue."""
        ...

    def free_claim(self, queue: str, key: str) -> bool:
        """End a claim, whatever becomes of its task; False when nobody held the key."""
        ...

    def sweep(self) -> Swept:
        """Promote what is due, give back lapsed leases at the head of their priority, drop dead letters past their retention.

        In effect at most once per half second whoever calls; every worker calls it each second. A lapsed lease is taken only
        after a third of its visibility timeout of sweeping without a gap of 2 s, so that after an outage holders renew first.
        What a lapse counts as, `model/lapse.py` says for all brokers: the first one in `State.lapses`; later ones only when the
        delivery was marked started, those of a suspect in `State.deaths`. One death too many makes a dead letter `poison`.
        """
        ...

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        """Counts per queue, sorted by name; None: every queue that holds anything."""
        ...

    def purge(self, queue: str, dead_letters: bool = False) -> int:
        """Remove what is ready or delayed (and dead, if asked), never what is in flight. Returns how many."""
        ...

    def dead_letters(self, queue: str, limit: int = 50, offset: int = 0, since: float | None = None) -> DeadLetterPage:
        """Newest first; only those that died at or after `since`."""
        ...

    def dead_letter(self, queue: str, task_id: str) -> DeadTask | None: ...

    def replay_dead_letters(
        self,
        queue: str,
        limit: int = 50,
        since: float | None = None,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
    ) -> list[DeadTask]:
        """Queue dead letters again, oldest first, each in one atomic step with its record (`failed` → `queued`, annotated).

        One that is unique holds its key no more: it goes in whether another task has the key by now or not.
        """
        ...

    def purge_dead_letters(
        self, queue: str, limit: int | None = None, since: float | None = None, ids: Sequence[str] | None = None
    ) -> int:
        """Remove dead letters for good; with a limit the newest. Returns how many."""
        ...

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        ...

    def close(self) -> None:
        """Idempotent; open intakes end."""
        ...


@runtime_checkable
class TransactionalBroker(Protocol):
    """A broker whose server is also the application's database: it can store messages inside the application's transactions."""

    def publish_within(self, connection: Any, messages: Sequence[Message]) -> Mapping[str, str]:
        """As `Broker.publish`, on a connection of the caller's and in the transaction that is open there.

        The messages can be received once that is committed, and never were if it is rolled back. Without a transaction they are
        stored at once. The connection stays usable when this raises.

        Raises:
            UsageError: it is no connection of this kind of server.
        """
        ...


# ---------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class RecordPage:
    items: Sequence[TaskRecord]
    next_offset: int | None = None


class ResultBackend(Protocol):
    """Task records by id. A record gives way only to one of higher precedence (`TaskRecord.precedence`)."""

    def set_many(self, records: Sequence[TaskRecord]) -> list[bool]:
        """Store records; False where a record of higher precedence stands. Equal precedence overwrites with itself."""
        ...

    def announce(self, records: Sequence[TaskRecord]) -> list[TaskRecord | None]:
        """Say that these redeliveries are about to run, one atomic step each; for results with a server of their own.

        Stores each `running` record, whose delivery count refuses an older holder's writes from then on. Where a final record of
        the same attempt stands, that is left and returned: it is to be settled, not run again.
        """
        ...

    def get(self, task_id: str) -> TaskRecord | None:
        """The record, or None: never written, or past its time to live."""
        ...

    def wait(self, task_ids: Sequence[str], timeout: float) -> dict[str, TaskRecord]:
        """Wait until every task has a final record, or `timeout` seconds; returns the final ones there are.

        Woken by the writer, also one in another process; never a busy loop.
        """
        ...

    def list_records(
        self, state: TaskState | None = None, queue: str | None = None, limit: int = 50, offset: int = 0
    ) -> RecordPage:
        """Newest `updated_at` first."""
        ...

    def purge_expired(self) -> int:
        """Remove records past their time to live, at most some thousands a call. Returns how many."""
        ...

    def close(self) -> None: ...


# ---------------------------------------------------------------- revocations, locks, rate limits, heartbeats, control


@dataclass(frozen=True, slots=True)
class Revocation:
    """A request to cancel a task. `version` is issued by the store (0 before it is stored) and only grows.

    `expires_at`: when it may be forgotten, seconds since the epoch.
    """

    task_id: str
    terminate: bool = False
    reason: str | None = None
    requested_by: str | None = None
    issued_at: float = 0.0
    expires_at: float | None = None
    version: int = 0


class RevokeStore(Protocol):
    """Durable revocations."""

    def upsert_all(self, revocations: Sequence[Revocation]) -> list[Revocation]:
        """Store them with new versions (one per task id, the newest stands); returns them as stored. Durable when it returns."""
        ...

    def list_since(self, version: int = 0, limit: int = 1000) -> list[Revocation]:
        """Those with a greater version that have not expired, by ascending version."""
        ...

    def prune_expired(self) -> int:
        """Remove the expired ones; returns how many."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pause:
    """A queue that no worker receives from until it is resumed. `paused_at`: seconds since the epoch, by the server's clock."""

    queue: str
    reason: str | None = None
    requested_by: str | None = None
    paused_at: float = 0.0


class PauseStore(Protocol):
    """Which queues are paused. The whole of it is read each time, so there are no versions: who hears of a change looks here."""

    def pause(self, queues: Sequence[str], reason: str | None = None, requested_by: str | None = None) -> None:
        """Pause queues, known or not; one that is paused already keeps its time. Durable when it returns."""
        ...

    def resume(self, queues: Sequence[str]) -> None:
        """Pause them no longer; for one that is not paused nothing happens. Durable when it returns."""
        ...

    def paused(self) -> list[Pause]:
        """Those that are paused, sorted by queue."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held. `fence` grows with every acquisition of the key: a store that remembers it refuses an old holder."""

    key: str
    owner: str
    fence: int


class LockStore(Protocol):
    """Named locks that expire."""

    def acquire(self, key: str, owner: str, ttl: float = 30.0) -> Lock | None:
        """The lock, or None while another owner holds it. Its own holder acquires it again with the same fence."""
        ...

    def renew(self, lock: Lock, ttl: float = 30.0) -> bool:
        """Hold it `ttl` seconds from now; False when it is not held any more."""
        ...

    def owner_of(self, key: str) -> str | None: ...

    def release(self, lock: Lock) -> bool:
        """Give it up; False when it is not held any more."""
        ...

    def close(self) -> None: ...


class RateLimiter(Protocol):
    """Counts what must not happen too often, by tokens of a bucket, or too much at once, by places that are leased.

    Buckets and places have keys of their own, which nobody needs to make or to remove.
    """

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        """Take a token for each limit and a place for each place of each who asks, all of his or none, in order and in one step.

        None: he may. Else the seconds after which to ask again; those who are refused get different ones, so that not all come
        back for the same token. What is asked again after a `BrokerUnavailable` may cost a token more, never one less; a place
        that its holder has already it has still. See `model.concurrency` for who gets a place that comes free.
        """
        ...

    def renew(self, places: Sequence[Place]) -> list[bool]:
        """Let each place lapse its full time from now. One that lapsed is taken anew while there is room; else False."""
        ...

    def release(self, places: Sequence[Place]) -> None:
        """Free the places that these holders have. Idempotent."""
        ...

    def close(self) -> None: ...


class HeartbeatStore(Protocol):
    """The last snapshot of each worker, forgotten after `ttl` seconds without a new one."""

    def put_heartbeat(self, worker_id: str, snapshot: Mapping[str, Any], ttl: float) -> None:
        """Replace the snapshot of `worker_id`. It holds only None, bool, int, float, str, list and dict."""
        ...

    def list_heartbeats(self) -> list[dict[str, Any]]:
        """All live snapshots, sorted by worker id."""
        ...

    def close(self) -> None: ...


class ControlBus(Protocol):
    """Commands to workers and their replies. It forgets: a message is gone after its time to live, read or not.

    Messages are pulled in pages with a cursor; every reader of a channel gets every message sent after its cursor was made.
    """

    def send(self, channel: str, message: bytes, ttl: float) -> None:
        """Put a message on a channel and wake its readers."""
        ...

    def cursor(self, channels: Sequence[str]) -> Any:
        """A mark for "now": only later messages are pulled with it."""
        ...

    def pull(self, channels: Sequence[str], cursor: Any, limit: int = 100, wait: float = 0.0) -> tuple[list[bytes], Any]:
        """Messages after `cursor`, oldest first, and the cursor behind them; waits up to `wait` seconds when there are none."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores one application uses, by role. `results` is None when results are switched off.

    `settles_results`: broker and results share a server, so `Broker.settle` writes the records itself, in the same step.
    """

    broker: Broker
    results: ResultBackend | None
    revocations: RevokeStore
    pauses: PauseStore
    locks: LockStore
    rate_limits: RateLimiter
    heartbeats: HeartbeatStore
    control: ControlBus
    settles_results: bool
    names: Mapping[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Close every store once. Idempotent."""
        others = (self.revocations, self.pauses, self.locks, self.rate_limits, self.heartbeats, self.control)
        for store in (self.broker, self.results, *others):
            if store is not None:
                store.close()
