"""What the contract suite needs of an adapter: to open the same server several times, under a clock advanced by hand.

A new adapter adds its `Fabric` to `FABRICS` and passes the suite.
"""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from stem_actors.adapters import open_stores
from stem_actors.adapters.memory import MemoryServer
from stem_actors.clock import Clock, SystemClock
from stem_actors.errors import BrokerUnavailable
from stem_actors.model.delivery import Handout, State
from stem_actors.model.lapse import Retention
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, Verdict
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Answer, Broker, Intake, Message, QueueDepth, ResultBackend, Stores
from stem_actors.testing import ManualClock
from tests.fixtures import postgres_server, redis_server

VISIBILITY = 30.0
RESULT_TTL = 1000.0
DEAD_LETTER_TTL = 5000.0
MAX_DEATHS = 3
PROMPTLY = 10.0  # a deadline for what should take milliseconds

T = TypeVar("T")
_numbers = count(1)


class Fabric(ABC):
    """One server for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self._opened: list[Stores] = []

    def open(self, namespace: str = "stem", clock: Clock | None = None) -> Stores:
        """Stores with a connection of their own, as another process would have."""
        stores = self._open(namespace, clock or self.clock)
        self._opened.append(stores)
        return stores

    def open_in_real_time(self) -> Stores:
        return self.open(clock=SystemClock())

    @abstractmethod
    def _open(self, namespace: str, clock: Clock) -> Stores: ...

    @abstractmethod
    def spoil_state(self, task_id: str) -> None:
        """Make the state of a waiting message unreadable, as somebody who writes into the server might."""

    @abstractmethod
    def count_entries(self) -> int:
        """How many rows or keys the server holds, results left out."""

    def close(self) -> None:
        for stores in self._opened:
            stores.close()


class MemoryFabric(Fabric):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._servers: dict[type[Clock], MemoryServer] = {}

    def _open(self, namespace: str, clock: Clock) -> Stores:
        server = self._servers.setdefault(type(clock), MemoryServer(clock))
        space = server.namespace(namespace)
        return Stores(
            space.broker(Retention(VISIBILITY, MAX_DEATHS, DEAD_LETTER_TTL, RESULT_TTL)),
            space.results(RESULT_TTL),
            space.revocations(),
            space.pauses(),
            space.locks(),
            space.rate_limits(),
            space.heartbeats(),
            space.control(),
            settles_results=True,
        )

    @property
    def _space(self) -> Any:
        return self._servers[ManualClock].namespace("stem").space

    def spoil_state(self, task_id: str) -> None:
        for levels in self._space.ready.values():
            for level, messages in levels.items():
                levels[level] = type(messages)(
                    message._replace(state=None) if message.id == task_id else message for message in messages
                )

    def count_entries(self) -> int:
        space = self._space
        waiting = sum(len(messages) for levels in space.ready.values() for messages in levels.values())
        own = (space.senders, space.names, space.claims, space.locks, space.buckets, space.semaphores, space.control)
        kept = (space.delayed, space.leased, *own, *space.dead.values())
        return waiting + sum(map(len, kept))


class SqliteFabric(Fabric):
    @property
    def path(self) -> Path:
        return self.folder / "stem.db"

    def _open(self, namespace: str, clock: Clock) -> Stores:
        return open_stores(
            f"sqlite:///{self.path}",
            namespace=namespace,
            clock=clock,
            visibility_timeout=VISIBILITY,
            result_ttl=RESULT_TTL,
            dead_letter_ttl=DEAD_LETTER_TTL,
            max_deaths=MAX_DEATHS,
            synchronous="normal",
        )

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def spoil_state(self, task_id: str) -> None:
        self._execute("UPDATE ready SET state = ? WHERE id = ?", (b"\xc1garbage", task_id))

    def count_entries(self) -> int:
        tables = self._execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('result', 'sqlite_sequence')"
        )
        return sum(self._execute(f"SELECT count(*) FROM {table}")[0][0] for (table,) in tables)


class RedisFabric(Fabric):
    """The session's server, in namespaces of the test's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = redis_server.shared_url()
        self.prefix = redis_server.new_namespace()

    def _open(self, namespace: str, clock: Clock) -> Stores:
        return open_stores(
            self.url,
            namespace=f"{self.prefix}-{namespace}",
            clock=clock,
            visibility_timeout=VISIBILITY,
            result_ttl=RESULT_TTL,
            dead_letter_ttl=DEAD_LETTER_TTL,
            max_deaths=MAX_DEATHS,
        )

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Past the adapter."""
        import redis

        with redis.Redis.from_url(self.url, protocol=2) as client:
            yield client

    def spoil_state(self, task_id: str) -> None:
        with self.client() as client:
            for stream in client.scan_iter(f"{self.prefix}-stem:{{*}}:p*"):
                entries = client.xrange(stream)
                client.xtrim(stream, maxlen=0)
                for _, fields in entries:
                    is_it = fields[b"h"].endswith(b"\n" + task_id.encode())
                    client.xadd(stream, fields | {b"s": b"\xc1garbage"} if is_it else fields)

    def count_entries(self) -> int:
        """Messages, and what hashes and sets hold. Streams that stay for the next message count nothing."""
        count = 0
        with self.client() as client:
            for key in client.scan_iter(f"{self.prefix}-stem:*"):
                if b":result" in key or key.endswith((b"control:channels", b":meta")):
                    continue
                size = {b"stream": "XLEN", b"hash": "HLEN", b"zset": "ZCARD", b"set": "SCARD", b"list": "LLEN"}
                kind = client.type(key)
                count += client.execute_command(size[kind], key) if kind in size else 1
        return count

    def close(self) -> None:
        super().close()
        with self.client() as client:
            redis_server.flush_namespace(client, self.prefix)


class PostgresFabric(Fabric):
    """The session's server and a schema of it, in namespaces of the test's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = postgres_server.shared_url()
        self.prefix = postgres_server.new_namespace()

    def _open(self, namespace: str, clock: Clock) -> Stores:
        return open_stores(
            self.url,
            namespace=f"{self.prefix}-{namespace}",
            clock=clock,
            visibility_timeout=VISIBILITY,
            result_ttl=RESULT_TTL,
            dead_letter_ttl=DEAD_LETTER_TTL,
            max_deaths=MAX_DEATHS,
        )

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Past the adapter."""
        return postgres_server.execute(self.url, sql, parameters)

    def spoil_state(self, task_id: str) -> None:
        self.execute(
            "UPDATE stem.ready SET state = %s WHERE id = %s AND queue IN "
            "(SELECT id FROM stem.queue WHERE namespace IN (SELECT id FROM stem.namespace WHERE name LIKE %s))",
            (b"\xc1garbage", task_id, f"{self.prefix}-%"),
        )

    def count_entries(self) -> int:
        tables = self.execute(
            "SELECT table_name, bool_or(column_name = 'namespace') FROM information_schema.columns WHERE table_schema = 'stem' "
            "AND table_name NOT IN ('result', 'migration', 'namespace') GROUP BY table_name"
        )
        mine = "namespace = (SELECT id FROM stem.namespace WHERE name = %s)"
        of_queue = f"queue IN (SELECT id FROM stem.queue WHERE {mine})"
        counts = (f"(SELECT count(*) FROM stem.{table} WHERE {mine if has_one else of_queue})" for table, has_one in tables)
        ((count,),) = self.execute(f"SELECT {' + '.join(counts)}", [f"{self.prefix}-stem"] * len(tables))
        return int(count)


FABRICS: dict[str, Callable[[Path], Fabric]] = {
    "memory": MemoryFabric,
    "sqlite": SqliteFabric,
    "redis": RedisFabric,
    "postgres": PostgresFabric,
}


# ---------------------------------------------------------------- short forms


def message(task_id: str, queue: str = "default", priority: int = 5, **fields: Any) -> Message:
    return Message(task_id, queue, priority, fields.pop("body", b"body of " + task_id.encode()), **fields)


def publish(broker: Broker, *messages: Message | str, sender: str = "") -> None:
    """As a sender of its own, unless it is named."""
    number = next(_numbers)
    broker.publish(
        sender or f"sender-{number}", number, [each if isinstance(each, Message) else message(each) for each in messages]
    )


def take(
    source: Broker | Intake, limit: int = 100, holder: str = "holder-1", queues: Sequence[str] = ("default",)
) -> list[Handout]:
    """What there is now."""
    if not hasattr(source, "receive"):
        source = source.open_intake(queues, holder)
        try:
            return source.receive(limit, 0)
        finally:
            source.close()
    return source.receive(limit, 0)


def take_one(source: Broker | Intake, holder: str = "holder-1") -> Handout:
    (handout,) = take(source, 1, holder)
    return handout


def ids(handouts: Sequence[Handout]) -> list[str]:
    return [handout.id for handout in handouts]


def settle(
    broker: Broker, handout: Handout, verdict: Verdict | None = None, state: State | None = None, record: TaskRecord | None = None
) -> Answer:
    (answer,) = broker.settle([Settlement(handout.lease, verdict or Ack(), state, record)])
    return answer


def record_of(handout: Handout, state: TaskState = TaskState.SUCCEEDED, **fields: Any) -> TaskRecord:
    """As a worker would write it."""
    counters = handout.state or State()
    meta = {"task": "a.task", "queue": handout.lease.queue, **fields.pop("meta", {})}
    return TaskRecord(handout.id, state, counters.attempt, counters.delivery_count, counters.replay_count, meta=meta, **fields)


def depth(broker: Broker, queue: str = "default") -> QueueDepth:
    (found,) = broker.depths([queue])
    return found


def counts(broker: Broker, queue: str = "default") -> tuple[int, int, int, int]:
    """Pending, in flight, delayed, dead."""
    found = depth(broker, queue)
    return found.pending, found.inflight, found.delayed, found.dead


def sweep_for(broker: Broker, clock: ManualClock, seconds: float) -> int:
    """Sweep once a second for that long, as workers do. Returns how many leases were taken away, poison counted too."""
    taken = 0
    end = clock.monotonic() + seconds
    while True:
        swept = broker.sweep()
        taken += swept.reclaimed + swept.poisoned
        if clock.monotonic() >= end:
            return taken
        clock.advance(min(1.0, end - clock.monotonic()))


def let_lapse(broker: Broker, clock: ManualClock, visibility: float = VISIBILITY) -> int:
    """Nobody extends, and workers sweep: all leases of that visibility lapse."""
    return sweep_for(broker, clock, visibility + 1)


def results_of(stores: Stores) -> ResultBackend:
    assert stores.results is not None
    return stores.results


@contextmanager
def meanwhile(function: Callable[..., T], *arguments: Any) -> Iterator[Future[T]]:
    """Run it in another thread for the time of a block; the block asks the future, with a deadline."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *arguments)


# ---------------------------------------------------------------- servers that come and go


def until_answered(question: Callable[[], T], *expected: type[Exception], timeout: float = PROMPTLY) -> T:
    """Ask again, as actors do, until there is an answer that is true."""
    deadline = time.monotonic() + timeout
    while True:
        with suppress(*expected):
            answer = question()
            if answer:
                return answer
        assert time.monotonic() < deadline, "no answer in time"
        time.sleep(0.01)


def publish_at_last(broker: Broker, task_id: str) -> None:
    """Once the broker is back."""

    def is_published() -> bool:
        publish(broker, task_id)
        return True

    until_answered(is_published, BrokerUnavailable)
