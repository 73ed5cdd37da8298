"""`Database`: one schema of one server as this process uses it. Connects, runs statements, and names what went wrong.

Most verbs are one statement, and so one round trip and one transaction. In their text `@name` stands for a table of our schema
and `@now` for the server's clock. Connections come from psycopg's pool; they are in autocommit mode, and a statement that must
not wait for the disk says so itself (`@lazily`), so no connection carries a state of one use to the next.

Nothing that writes is sent again after its answer was lost: whoever repeats, repeats something that is numbered or fenced. What
reads is asked once more when its connection was lost, and what the server itself undid (deadlock, serialization failure) is
repeated here. Every wait for the server has an end.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from stem_actors.adapters.postgres import arrays, errors, schema
from stem_actors.adapters.postgres.hints import Hints
from stem_actors.adapters.postgres.server import examine
from stem_actors.clock import Clock, SystemClock
from stem_actors.errors import BrokerUnavailable, ConfigError, OperatorError, UsageError

if TYPE_CHECKING:
    from stem_actors.adapters.postgres.endpoint import Endpoint

__all__ = ["Database", "Parameters", "Row", "Transaction"]

Row: TypeAlias = tuple[Any, ...]
Parameters: TypeAlias = Mapping[str, Any]

T = TypeVar("T")

_logger = logging.getLogger("stem.postgres")

ANSWER_TIMEOUT = 10.0
"""Seconds for one statement."""
MIGRATION_TIMEOUT = 300.0
POOL_TIMEOUT, POOL_PATIENCE = 5.0, 0.5
"""Seconds to wait for a connection, and after which to look why there is none: who waits is not told of one that failed."""
MOST_CONNECTIONS = 10
FORGET_AFTER = 60.0
"""Seconds after which a connection nobody uses is closed."""
CLOCK_CHECK = 10.0
"""Seconds between two comparisons of the server's clock with ours."""
OLDEST_SERVER = 12_00_00
TRIES = 20
"""Of what the server undid for the sake of another transaction."""

_POOL = "stem-pool-"

# What a fork carried into this process. Closing a connection would say goodbye in the parent's name, so they are kept, unused.
_inherited: list[Any] = []


class Database:
    """One schema, for all stores and threads of this process. Connected at first use, and again after a fork.

    With `SystemClock` the server's clock counts; any other clock (a test's) takes its place.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self._has_own_clock = not isinstance(clock, SystemClock)
        self._texts: dict[str, str] = {}
        self._users = 0
        self._offset = 0.0
        self._compared_at = float("-inf")
        self._is_examined = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pool: Any = None
        self._is_up = False
        self._is_closed = False
        self._names: dict[tuple[int | None, str], int] = {}
        self._last_token = 0
        self.hints = Hints(self._connect_to_listen, self.endpoint.schema, self.endpoint.poll_only, self.endpoint.poll_interval)

    def attach(self) -> Database:
        """One more store uses this database."""
        with self._lock:
            self._users += 1
        return self

    def detach(self) -> None:
        """One store less; the last one closes the connections."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
        self.close()

    def close(self) -> None:
        self._follow_fork()
        self.hints.close()
        with self._lock:
            pool, self._pool, self._is_closed = self._pool, None, True
        if pool is not None:
            pool.close()

    # ------------------------------------------------------------ time

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        if self._has_own_clock:
            return self.clock.now()
        if self.clock.monotonic() - self._compared_at > CLOCK_CHECK:
            self._compare_clocks()
        return self.clock.now() + self._offset

    def _compare_clocks(self) -> None:
        asked_at = self.clock.now()
        try:
            ((theirs,),) = self.run("SELECT @now")
        except BrokerUnavailable:
            if self._compared_at == float("-inf"):
                raise
        else:
            self._offset = theirs - (asked_at + self.clock.now()) / 2
        self._compared_at = self.clock.monotonic()  # while the server is away, the last comparison stands

    # ------------------------------------------------------------ statements

    def run(self, sql: str, parameters: Parameters | None = None) -> list[Row]:
        """Run one statement as a transaction of its own; its rows.

        Raises:
            BrokerUnavailable: it may or may not have happened.
            StorageFull, StorageBroken: it did not happen.
            Unstorable: it did not happen, and it never will with these values.
        """
        return self._repeated(lambda connection: Transaction(self, connection).run(sql, parameters))

    def read(self, sql: str, parameters: Parameters | None = None) -> list[Row]:
        """As `run`, for a statement that changes nothing: asked once more, on a new connection, when the first was lost."""
        try:
            return self.run(sql, parameters)
        except BrokerUnavailable as error:
            if not error.is_cut:
                raise
            return self.run(sql, parameters)

    def transact(self, work: Callable[[Transaction], T], durable: bool = True) -> T:
        """Do several statements as one transaction; raises as `run`. `work` may be done again, from the beginning."""

        def all_of_it(connection: Any) -> T:
            with connection.transaction():
                transaction = Transaction(self, connection)
                if not durable:
                    transaction.run("SET LOCAL synchronous_commit TO off")
                return work(transaction)

        return self._repeated(all_of_it)

    def _repeated(self, action: Callable[[Any], T]) -> T:
        for attempt in range(TRIES):
            try:
                with self._connection() as connection:
                    return action(connection)
            except errors.Undone as error:
                if attempt == TRIES - 1:
                    raise BrokerUnavailable(f"{self.endpoint}: other transactions were in the way each time: {error}") from error
                time.sleep(random.uniform(0.0, min(0.2, 0.002 * 2**attempt)))
        raise AssertionError("unreachable")

    def text(self, sql: str) -> str:
        """A statement as the server understands it."""
        found = self._texts.get(sql)
        if found is None:
            now = "%(now)s::float8" if self._has_own_clock else "extract(epoch FROM statement_timestamp())::float8"
            lazily = "set_config('synchronous_commit', 'off', true)"
            found = self._texts[sql] = schema.rendered(sql, self.endpoint.schema, {"now": now, "lazily": lazily})
        return found

    def parameters(self, given: Parameters | None) -> Parameters | None:
        """What goes with a statement; where a test's clock counts, the time goes along."""
        return {**(given or {}), "now": self.clock.now()} if self._has_own_clock else given

    def draw_tokens(self, count: int) -> int:
        """The first of so many tokens: greater than all that this process drew before.

        Drawn here, where it costs nothing and no server that is set up to forget can give one out again. Two processes may draw
        the same number; the holder tells them apart, and while one of two equal ones is in use the other cannot be.
        """
        with self._lock:
            first = max(self._last_token + 1, (time.time_ns() // 1000) << 12)
            self._last_token = first + count - 1
        return first

    # ------------------------------------------------------------ names

    def namespace_id(self, name: str) -> int:
        """The number that stands for a namespace in this schema; made at first use."""
        return self._numbered(None, name)

    def queue_id(self, namespace: int, name: str) -> int:
        """The number that stands for a queue in this schema; made at first use."""
        return self._numbered(namespace, name)

    def _numbered(self, namespace: int | None, name: str) -> int:
        self._follow_fork()
        number = self._names.get((namespace, name))
        if number is None:
            find, make = (_FIND_NAMESPACE, _MAKE_NAMESPACE) if namespace is None else (_FIND_QUEUE, _MAKE_QUEUE)
            parameters = {"namespace": namespace, "name": name}
            rows = self.read(find, parameters) or self.run(make, parameters) or self.read(find, parameters)
            number = self._names[namespace, name] = int(rows[0][0])
        return number

    # ------------------------------------------------------------ connections

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            # The lock may have been held by a thread that does not exist here.
            _inherited.extend((self._pool, self.hints))
            self._start()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        self._follow_fork()
        try:
            pool, connection = self._take()
        except Exception as error:
            self._is_up = False
            raise errors.translated(error, self.endpoint) from error
        try:
            yield connection
        except BaseException as error:
            was_lost = connection.closed
            if not _is_idle(connection):
                connection.close()  # an answer is still to come, or never will
            if connection.closed:
                self._is_up = False
            if isinstance(error, Exception):
                translated = errors.translated(error, self.endpoint)
                if isinstance(translated, BrokerUnavailable):
                    translated.is_cut = was_lost
                if translated is not error:
                    raise translated from error
            raise
        finally:
            pool.putconn(connection)

    def _take(self) -> tuple[Any, Any]:
        """A connection, and the pool that it goes back to."""
        deadline = time.monotonic() + POOL_TIMEOUT
        while True:
            pool = self._open_pool()
            try:
                connection = pool.getconn()
            except driver().OperationalError:
                if time.monotonic() >= deadline:
                    raise
                self._prepare()  # either the server says why, or it is worth while to try again
                continue
            if not _is_stale(connection):
                return pool, connection
            # The server has closed it, and the others most likely too: they are made anew, once it answers again.
            connection.close()
            pool.putconn(connection)
            self._is_up = False

    def _open_pool(self) -> Any:
        if self._is_up:
            return self._pool
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailable(f"{self.endpoint}: the store has been closed")
        self._prepare()
        with self._lock:
            if not self._is_up:
                old, self._pool = self._pool, self._new_pool()
                if old is not None:
                    old.close(timeout=0)
                self._is_up = True
            return self._pool

    def _new_pool(self) -> Any:
        from psycopg_pool import ConnectionPool

        logging.getLogger("psycopg.pool").addFilter(_is_for_others)
        pool: Any = ConnectionPool(
            connection_class=connection_class(),
            kwargs=self._connection_parameters(""),
            min_size=0,
            max_size=MOST_CONNECTIONS,
            open=False,
            timeout=POOL_PATIENCE,
            max_idle=FORGET_AFTER,
            reconnect_timeout=0,
            configure=self._configure,
            num_workers=1,
            name=f"{_POOL}{self.endpoint.schema}",
        )
        pool.open()
        return pool

    def _configure(self, connection: Any) -> None:
        """Made once for each connection. A plan that is kept must not depend on how little a queue holds at the moment."""
        arrays.register(connection)
        if not self.endpoint.poll_only:
            connection.execute("SET enable_seqscan = off; SET jit = off")  # which would compile what now looks dear

    def _prepare(self) -> None:
        """Look at the server with a connection of the caller's own: the pool says that it has none, and not why."""
        connection = self._connect("")
        try:
            if connection.info.server_version < OLDEST_SERVER:
                major = connection.info.server_version // 10_000
                raise OperatorError(f"{self.endpoint} is Postgres {major}; Stem needs 12 or newer.")
            if not self._is_examined:
                self._examine(connection)
            connection.patience = MIGRATION_TIMEOUT
            schema.ensure(connection, self.endpoint)
        finally:
            connection.close()

    def _examine(self, connection: Any) -> None:
        """Say once what the server is, and what to see to there."""
        report = examine(connection)
        _logger.info("%s: %s", self.endpoint, report)
        for note in report.notes:
            _logger.info("%s: %s", self.endpoint, note)
        if not self._has_own_clock:
            self._offset, self._compared_at = report.clock_offset, self.clock.monotonic()
        self._is_examined = True

    def _connect(self, purpose: str) -> Any:
        return connection_class().connect(**self._connection_parameters(purpose))

    def _connect_to_listen(self) -> Any:
        return self._connect("-hints")

    def _connection_parameters(self, purpose: str) -> dict[str, Any]:
        return {
            **self.endpoint.connection_parameters(f"stem-{os.getpid()}{purpose}"),
            "autocommit": True,
            "prepare_threshold": None if self.endpoint.poll_only else 2,
        }


_FIND_NAMESPACE = "SELECT id FROM @namespace WHERE name = %(name)s"
_MAKE_NAMESPACE = "INSERT INTO @namespace (name) VALUES (%(name)s) ON CONFLICT DO NOTHING RETURNING id"
_FIND_QUEUE = "SELECT id FROM @queue WHERE namespace = %(namespace)s AND name = %(name)s"
_MAKE_QUEUE = "INSERT INTO @queue (namespace, name) VALUES (%(namespace)s, %(name)s) ON CONFLICT DO NOTHING RETURNING id"


class Transaction:
    """Statements on one connection."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._database = database
        self._connection = connection

    @classmethod
    def of_caller(cls, database: Database, connection: Any) -> Transaction:
        """On a connection that is not ours, and that knows neither our arrays nor rows as we expect them.

        Raises:
            UsageError: it is none of psycopg 3, nor has one inside.
        """
        return cls(database, _Foreign(_innermost(connection)))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block did when it raises, and leave the transaction around it, which is begun if need be, as it was."""
        psycopg, raw = driver(), self._connection.raw
        if not raw.autocommit and raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            raw.execute("SELECT 1")  # begins it; else the block would be one of its own, and committed
        try:
            with raw.transaction():
                yield
        except psycopg.Error as error:
            translated = errors.translated(error, self._database.endpoint)
            if isinstance(translated, errors.Undone):
                raise  # it is the caller's transaction that has to be repeated
            raise translated from error

    def hint(self, topics: Iterable[str]) -> None:
        """Send hints when this transaction is committed."""
        database = self._database
        if not database.endpoint.poll_only:
            told = {"channel": database.hints.channel, "topics": sorted(set(topics))}
            self.run("SELECT pg_notify(%(channel)s, topic) FROM unnest(%(topics)s::text[]) AS topic", told)

    def run(self, sql: str, parameters: Parameters | None = None) -> list[Row]:
        """The rows of one statement; none where it has no result."""
        database = self._database
        cursor = self._connection.execute(database.text(sql), database.parameters(parameters), binary=True)
        return cursor.fetchall() if cursor.description is not None else []


class _Foreign:
    """Somebody else's connection, used as one of ours."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Parameters | None, binary: bool) -> Any:
        cursor = self.raw.cursor(binary=binary, row_factory=driver().rows.tuple_row)
        arrays.register(cursor)
        return cursor.execute(sql, parameters)


def _innermost(connection: Any) -> Any:
    """psycopg's connection; SQLAlchemy has it inside of its own, and that inside of a session."""
    psycopg = driver()
    for _ in range(4):
        if isinstance(connection, psycopg.Connection):
            return connection
        inner = getattr(connection, "driver_connection", None) or getattr(connection, "connection", None)
        if callable(inner):
            inner = inner()
        elif hasattr(connection, "in_transaction") and not connection.in_transaction():
            connection.begin()  # as its own statements do: it commits nothing but what it knows to have begun
        connection = inner
    raise UsageError(
        "a task is enqueued inside the transaction of a psycopg 3 connection, or of one of SQLAlchemy that has it inside"
    )


# ---------------------------------------------------------------- psycopg


def driver() -> Any:
    """The client library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        why = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise ConfigError(f"Postgres stores need psycopg: pip install 'stem-actors[postgres]'{why}") from None
    return psycopg


@cache
def connection_class() -> Any:
    """A connection that waits for no answer longer than `ANSWER_TIMEOUT`."""
    psycopg: Any = driver()
    ready, wanted_for_writing = psycopg.waiting.Ready, int(psycopg.waiting.WAIT_W)
    events = {int(each): _events(int(each), wanted_for_writing) for each in psycopg.waiting.Wait}

    class BoundedConnection(psycopg.Connection):  # type: ignore[misc]  # a base that is only known once the library is there
        patience = ANSWER_TIMEOUT

        def wait(self, generator: Any, *_: Any, **__: Any) -> Any:
            deadline = time.monotonic() + self.patience
            descriptor, poll = self.pgconn.socket, select.poll()
            try:
                wanted = next(generator)
                while True:
                    poll.register(descriptor, events[int(wanted)])
                    found = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
                    if not found:
                        raise psycopg.OperationalError(f"no answer within {self.patience:g} s")
                    flags = found[0][1]
                    can_write, can_read = flags & select.POLLOUT, flags & ~select.POLLOUT
                    wanted = generator.send(ready.RW if can_write and can_read else ready.W if can_write else ready.R)
            except StopIteration as stop:
                return stop.value

    return BoundedConnection


def _is_for_others(record: logging.LogRecord) -> bool:
    """Whether the pool may log this: of ours, whoever needs a connection says what is wrong, and once."""
    told = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(each, connection_class()) or str(each).startswith(_POOL) for each in told)


def _events(wanted: int, writing: int) -> int:
    return (select.POLLOUT if wanted & writing else 0) | (select.POLLIN if wanted & ~writing else 0)


def _is_idle(connection: Any) -> bool:
    return bool(connection.info.transaction_status == driver().pq.TransactionStatus.IDLE)


def _is_stale(connection: Any) -> bool:
    """A connection that nobody uses has nothing to say, unless it is that the server has closed it."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))
