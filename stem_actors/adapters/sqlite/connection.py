"""`Database`: one SQLite file as one process uses it. Opens, migrates, locks, commits, and names what went wrong.

Each process has one connection that writes, behind a lock where its threads queue, and one that reads, which never waits for
a writer (WAL). Between processes SQLite lets one write at a time; its own busy handler starves all but one of several busy
writers, so we wait ourselves: `BEGIN IMMEDIATE` again after a short random sleep, up to a deadline. Only `BEGIN IMMEDIATE`
before a write: a read transaction that turns into a write fails at once when another has written since.

A commit is *durable* when it waits for the disk (`synchronous=FULL`). What merely hands out, looks after or forgets does
without: a power cut that loses it costs a redelivery.

Each step of SQLite lets go of the interpreter's lock, and in a process of busy threads taking it back costs more than the
step itself. So the statements here work on sets, and rows are inserted many to a step (`Insertion`).
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from stem_actors.adapters.sqlite.wakeup import Wakeup
from stem_actors.clock import Clock
from stem_actors.errors import BrokerUnavailable, StorageBroken, StorageFull

__all__ = ["CONTENT_ERRORS", "WRITE_DEADLINE", "Database", "Insertion", "Parameters", "Row", "Synchronous"]

Synchronous: TypeAlias = Literal["full", "normal"]
Row: TypeAlias = tuple[Any, ...]
Parameters: TypeAlias = Sequence[Any] | dict[str, Any]

T = TypeVar("T")

# What SQLite or its binding raises when it will not take a value, whoever asks: the rest of the batch is not to blame.
CONTENT_ERRORS = (
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    ValueError,
    TypeError,
    OverflowError,
)

APPLICATION_ID = 0x5374656D  # "Stem", in the file's header
VERSION = 3  # of the schema: the last file in migrations/
WRITE_DEADLINE = 3.0
LOG_LIMIT = 32 * 2**20  # bytes

_CONNECTION_SETUP = f"""
    PRAGMA foreign_keys = ON;
    PRAGMA secure_delete = OFF;
    PRAGMA wal_autocheckpoint = 2000;
    PRAGMA journal_size_limit = {LOG_LIMIT};
    PRAGMA cache_size = -8000;
    PRAGMA temp_store = MEMORY;
"""
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs"})

# Connections that a fork carried into this process. Closing one would touch the parent's log, so they are kept, unused.
_inherited: list[sqlite3.Connection | None] = []


class Database:
    """One file, for all stores and threads of this process. Opened at first use, and again after a fork.

    Shared by several stores: each `attach`es and `detach`es, the last one closes.
    """

    def __init__(
        self, path: Path, clock: Clock, synchronous: Synchronous = "full", write_deadline: float = WRITE_DEADLINE
    ) -> None:
        self.path = path
        self.clock = clock
        self.wakeup = Wakeup(path)
        self._synchronous = synchronous
        self._write_deadline = write_deadline
        self._users = 0
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._is_durable = True
        self._names: dict[tuple[str, str], int] = {}

    def attach(self) -> Database:
        self._users += 1
        return self

    def detach(self) -> None:
        """Called once by each store that attached."""
        self._users -= 1
        if self._users == 0:
            self.close()

    def close(self) -> None:
        self._follow_fork()
        with self._write_lock, self._read_lock:
            self._is_closed = True
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None
        self.wakeup.close()

    # ------------------------------------------------------------ reading and writing

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """All rows of one query, as of now."""
        self._follow_fork()
        with self._read_lock:
            try:
                if self._reader is None:
                    self._reader = self._open_reader()
                reader = self._reader
                # Readers wait for nobody but the last process that closed the file, while it empties the log.
                deadline = time.monotonic() + self._write_deadline
                return self._patiently(lambda: reader.execute(sql, parameters).fetchall(), deadline)
            except sqlite3.Error as error:
                raise self._translated(error) from error

    @contextmanager
    def write(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it happens, or, when the block raises, nothing.

        Raises:
            BrokerUnavailable: others kept the file locked until the deadline.
            StorageFull, StorageBroken: nothing was stored.
        """
        self._follow_fork()
        deadline = time.monotonic() + self._write_deadline  # real time, whatever the clock: others hold a real lock
        if not self._write_lock.acquire(timeout=self._write_deadline):
            raise self._busy("another thread of this process")
        try:
            try:
                connection = self._begin(durable, deadline)
            except sqlite3.Error as error:
                raise self._translated(error) from error
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                _roll_back(connection)
                if isinstance(error, sqlite3.Error) and not isinstance(error, CONTENT_ERRORS):
                    raise self._translated(error) from error
                raise
        finally:
            self._write_lock.release()

    def shorten_log(self) -> None:
        """Empty the log when it has grown: under steady load from several processes no commit finds it unread by everybody.

        Readers are short, so the moment for it comes soon; if not, the next call tries again.
        """
        try:
            if os.stat(f"{self.path}-wal").st_size < LOG_LIMIT:
                return
        except OSError:
            return
        with self._write_lock:
            if self._writer is not None and self._pid == os.getpid():
                try:
                    self._writer.executescript(
                        "PRAGMA busy_timeout = 100; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout = 0;"
                    )
                except sqlite3.Error as error:
                    if _primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                        raise self._translated(error) from error

    # ------------------------------------------------------------ names

    def namespace_id(self, name: str) -> int:
        """The number that stands for a namespace in this file; made at first use."""
        return self._numbered(("", name), "namespace", "name", (name,))

    def queue_id(self, namespace: int, name: str) -> int:
        """The number that stands for a queue in this file; made at first use."""
        return self._numbered((str(namespace), name), "queue", "namespace, name", (namespace, name))

    def _numbered(self, key: tuple[str, str], table: str, columns: str, values: tuple[Any, ...]) -> int:
        self._follow_fork()
        number = self._names.get(key)
        if number is None:
            marks = ", ".join("?" * len(values))
            query = f"SELECT id FROM {table} WHERE ({columns}) = ({marks})"
            rows = self.read(query, values)
            if not rows:
                with self.write() as connection:
                    connection.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", values)
                    rows = connection.execute(query, values).fetchall()
            number = self._names[key] = int(rows[0][0])
        return number

    # ------------------------------------------------------------ connections

    def _follow_fork(self) -> None:
        if self._pid != os.getpid():
            # The locks may have been held by a thread that does not exist here.
            _inherited.extend((self._writer, self._reader))
            self._start()
            self.wakeup = Wakeup(self.path)

    def _begin(self, durable: bool, deadline: float) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._open_writer(deadline)
        connection = self._writer
        durable = durable and self._synchronous == "full"
        if durable != self._is_durable:
            # Not by `execute`: this pragma acts while it is compiled, and a statement from the cache is not.
            connection.executescript(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
        return connection

    def _patiently(self, action: Callable[[], T], deadline: float) -> T:
        while True:
            try:
                return action()
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                if time.monotonic() >= deadline:
                    raise self._busy("another process") from error
            time.sleep(random.uniform(0.0005, 0.008))

    def _connect(self) -> sqlite3.Connection:
        if self._is_closed:
            raise BrokerUnavailable(f"the store on {self.path} has been closed")
        return sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)

    def _open_writer(self, deadline: float) -> sqlite3.Connection:
        _refuse_network_file_system(self.path)
        connection = self._connect()
        try:
            self._patiently(lambda: self._prepare(connection, deadline), deadline)
        except BaseException:
            connection.close()
            raise
        self._is_durable = True
        return connection

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        connection.execute("BEGIN")  # one look: another process may be making the file just now
        try:
            self._check_ownership(connection)
        finally:
            _roll_back(connection)
        connection.executescript(f"PRAGMA journal_mode = WAL; {_CONNECTION_SETUP} PRAGMA synchronous = FULL;")
        if _pragma(connection, "user_version") < VERSION:
            self._migrate(connection, deadline)

    def _check_ownership(self, connection: sqlite3.Connection) -> None:
        version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
        is_empty = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        if application != APPLICATION_ID and not (is_empty and version == 0):
            raise StorageBroken(f"{self.path} is the database of another program. Name a file that is Stem's own, or a new one.")
        if version > VERSION:
            raise StorageBroken(
                f"{self.path} was written by a newer Stem (schema {version}, this one knows {VERSION}): upgrade this one."
            )

    def _migrate(self, connection: sqlite3.Connection, deadline: float) -> None:
        self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
        try:
            self._check_ownership(connection)  # another process may have been here first
            for version in range(_pragma(connection, "user_version") + 1, VERSION + 1):
                script = resources.files("stem_actors.adapters.sqlite.migrations").joinpath(f"{version:04}.sql").read_text()
                for statement in _statements(script):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _open_reader(self) -> sqlite3.Connection:
        if self._writer is None:  # which makes the file and its schema
            with self.write(durable=False):
                pass
        connection = self._connect()
        connection.executescript(f"{_CONNECTION_SETUP} PRAGMA query_only = ON;")
        return connection

    # ------------------------------------------------------------ errors

    def _busy(self, whom: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"{whom} has kept {self.path} locked for {self._write_deadline:g} s. "
            f"Look for a process that is stopped inside a write (`fuser {self.path}`); the next attempt may succeed."
        )

    def _translated(self, error: sqlite3.Error) -> Exception:
        match _primary_code(error):
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                return StorageFull(f"the disk under {self.path} is full or failing ({error}); nothing was stored. Make room.")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return StorageBroken(
                    f"{self.path} cannot be written ({error}). Its directory must exist, and both be writable for this user."
                )
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StorageBroken(f"{self.path} is damaged or no SQLite database ({error}). Restore it, or name another file.")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return self._busy("another process")
            case _:
                return error if isinstance(error, CONTENT_ERRORS) else StorageBroken(f"{self.path}: {error}")


class Insertion:
    """`INSERT INTO … VALUES …` of many rows in few steps.

    `tail` is what follows the values; `shared` names columns whose values are the same in all rows.
    """

    SIZES = (256, 64, 16, 4, 1)  # few different statements, so that they stay prepared

    def __init__(self, table: str, columns: str, tail: str = "", shared: str = "") -> None:
        same, own = (len(names.split(",")) if names else 0 for names in (shared, columns))
        marks = "(" + ", ".join([f"?{number}" for number in range(1, same + 1)] + ["?"] * own) + ")"
        head = f"INSERT INTO {table} ({shared}{', ' if shared else ''}{columns}) VALUES "
        self._statements = {size: f"{head}{', '.join([marks] * size)} {tail}" for size in self.SIZES}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]], shared: Sequence[Any] = ()) -> None:
        start = 0
        for size in self.SIZES:
            while len(rows) - start >= size:
                values = [*shared, *chain.from_iterable(rows[start : start + size])]
                connection.execute(self._statements[size], values)
                start += size


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # a full disk has already rolled back; the error that brought us here is the one to report


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """One by one, since `executescript` would commit before it begins."""
    lines: list[str] = []
    for line in script.splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            yield "\n".join(lines)
            lines.clear()


def _refuse_network_file_system(path: Path) -> None:
    """WAL needs memory shared by all who use the file, and file locks that work."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        place = path.resolve()
    except OSError:
        return  # not Linux: we cannot tell
    under = [fields for fields in mounts if place.is_relative_to(fields[4])]
    if under:
        nearest = max(under, key=lambda fields: len(fields[4]))
        kind = nearest[nearest.index("-") + 1]
        if kind in _NETWORK_FILE_SYSTEMS:
            raise StorageBroken(
                f"{path} lies on a network file system ({kind}), where SQLite's log does not work. Use a local disk."
            )
