"""The file itself: what is refused, what is made, and how processes find each other beside it."""

from __future__ import annotations

import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.adapters.sqlite import SqliteFile
from stem_actors.adapters.sqlite import connection as connection_module
from stem_actors.adapters.sqlite.connection import VERSION, WRITE_DEADLINE, Database, Insertion
from stem_actors.adapters.sqlite.wakeup import Wakeup, topic
from stem_actors.clock import SystemClock
from stem_actors.errors import BrokerUnavailable, StemError, StorageBroken

PROMPTLY = 10.0
LONG = 60.0


def opened(path: Path, write_deadline: float = WRITE_DEADLINE) -> None:
    """Open the file as any store does."""
    file = SqliteFile(path, "stem", SystemClock(), write_deadline=write_deadline)
    locks = file.locks()
    try:
        locks.acquire("key", "me")
    finally:
        locks.close()


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, "CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StorageBroken, match="another program"):
        opened(path)
    assert path.read_bytes() == before


def test_the_database_of_a_newer_stem_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stem.db"
    opened(path)
    execute(path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StorageBroken, match="newer Stem"):
        opened(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stem.db"
    path.write_text("a text of some length, which is no database at all" * 20)
    with pytest.raises(StorageBroken, match="no SQLite database"):
        opened(path)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageBroken, match="nowhere"):
        opened(tmp_path / "nowhere" / "stem.db")


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stem.db"
    opened(path)
    database = Database(path, SystemClock())
    with pytest.raises(StorageBroken, match="cannot be written"), database.write() as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("DELETE FROM lock")
    database.close()


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"1 1 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw shared:1 - nfs4 server:/ rw\n"
    read_text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *rest: mounts if path == Path("/proc/self/mountinfo") else read_text(path, *rest)
    )
    with pytest.raises(StorageBroken, match="nfs4"):
        opened(tmp_path / "stem.db")


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Each waits for those before it, on a disk that may be slow."""
    errors: list[StemError] = []

    def open_it() -> None:
        try:
            opened(tmp_path / "stem.db", write_deadline=LONG)
        except StemError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert errors == []


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "stem.db", "stem", SystemClock())
    locks = file.locks()
    locks.acquire("key", "me")
    locks.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        locks.acquire("key", "me")


def test_an_error_inside_a_transaction_undoes_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "stem.db", SystemClock())
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute("INSERT INTO namespace (name) VALUES ('x')")
        raise ZeroDivisionError
    assert database.read("SELECT * FROM namespace") == []
    database.close()


def test_a_log_that_has_grown_is_shortened_once_nobody_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LOG_LIMIT", 10_000)
    path, log = tmp_path / "stem.db", tmp_path / "stem.db-wal"
    database = Database(path, SystemClock())
    reader = sqlite3.connect(path, isolation_level=None)
    with database.write() as connection:
        connection.execute("INSERT INTO namespace (name) VALUES (?)", ("x" * 20_000,))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM namespace").fetchall()
    with database.write() as connection:
        connection.execute("DELETE FROM namespace")
    database.shorten_log()
    assert log.stat().st_size > 10_000
    reader.close()
    database.shorten_log()
    assert log.stat().st_size == 0
    database.close()


@pytest.mark.parametrize("count", [0, 1, 5, 64, 300, 1000])
def test_an_insertion_of_any_size_inserts_every_row_once(count: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b)")
    Insertion("t", "a, b").run(connection, [(number, -number) for number in range(count)])
    assert connection.execute("SELECT a, b FROM t ORDER BY a").fetchall() == [(number, -number) for number in range(count)]
    connection.close()


def test_what_is_shared_by_all_rows_of_an_insertion_is_named_once() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b, c, d)")
    Insertion("t", "c, d", shared="b, a").run(connection, [(number, -number) for number in range(70)], shared=("b", "a"))
    assert connection.execute("SELECT * FROM t ORDER BY c").fetchall() == [("a", "b", number, -number) for number in range(70)]
    connection.close()


# ---------------------------------------------------------------- waking each other


@pytest.fixture(params=["short", "long"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "long":
        yield tmp_path / ("a" * 100) / "stem.db"
    else:
        with tempfile.TemporaryDirectory(prefix="stem") as folder:
            yield Path(folder) / "stem.db"


@pytest.fixture
def wakeup(database: Path) -> Iterator[Wakeup]:
    wakeup = Wakeup(database)
    yield wakeup
    wakeup.close()


def test_whoever_listens_to_the_topic_is_woken(wakeup: Wakeup, database: Path) -> None:
    sender = Wakeup(database)
    mine, other = wakeup.open_inbox("mine"), wakeup.open_inbox("other")
    sender.notify("mine")
    assert mine.wait(PROMPTLY)
    assert not other.wait(0.01)
    mine.drain()
    assert not mine.wait(0.01)
    for closable in (mine, other, sender):
        closable.close()


def test_a_listener_that_comes_within_the_directorys_time_stamp_is_found(wakeup: Wakeup) -> None:
    for _ in range(50):
        wakeup.notify("topic")
        inbox = wakeup.open_inbox("topic")
        wakeup.notify("topic")
        assert inbox.wait(PROMPTLY)
        inbox.close()


def test_the_sockets_of_the_dead_are_removed(wakeup: Wakeup) -> None:
    inbox = wakeup.open_inbox("topic")
    folder = Path(inbox._path).parent
    corpse = folder / "topic.dead"
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(corpse))
    dead.close()
    assert corpse.exists()
    wakeup.notify("topic")
    assert not corpse.exists()
    assert inbox.wait(PROMPTLY)
    inbox.close()
    assert list(folder.iterdir()) == []
    wakeup.close()
    assert not folder.exists()


def test_a_full_inbox_holds_nobody_up(wakeup: Wakeup) -> None:
    inbox = wakeup.open_inbox("topic")
    start = time.monotonic()
    for _ in range(2000):
        wakeup.notify("topic")
    assert time.monotonic() - start < PROMPTLY
    assert inbox.wait(PROMPTLY)
    inbox.close()


def test_where_no_socket_can_be_bound_the_file_is_looked_at_again_and_again(wakeup: Wakeup) -> None:
    in_the_way = Path(wakeup._directory)
    in_the_way.write_text("")
    inbox = wakeup.open_inbox("topic")
    assert inbox.wait(PROMPTLY), "well before that"
    wakeup.notify("topic")
    inbox.interrupts.send()
    assert inbox.wait(PROMPTLY)
    assert inbox.interrupts.take()
    inbox.close()
    in_the_way.unlink()


def test_topics_are_short_and_differ_by_kind_and_namespace() -> None:
    topics = {topic(kind, namespace) for kind in ("intake", "results", "control") for namespace in ("a", "b" * 500)}
    assert len(topics) == 6
    assert max(map(len, topics)) < 12
