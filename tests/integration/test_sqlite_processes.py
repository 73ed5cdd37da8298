"""One SQLite file and several real processes: killed, locked out, out of room, forked.

Nothing is lost, and without a kill nothing is double.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stem_actors.adapters.sqlite import SqliteFile
from stem_actors.adapters.sqlite.broker import SqliteBroker
from stem_actors.clock import SystemClock
from stem_actors.errors import BrokerUnavailable, StorageFull
from stem_actors.model.lapse import Retention
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, Retry
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Done, Message

PATIENCE = 30.0
RETENTION = Retention(visibility_timeout=1.0, max_deaths=5, dead_letter_ttl=1000.0, result_ttl=1000.0)

# What every child begins with: `broker` and `results` on the file named by the first argument.
PRELUDE = """
import itertools, sys, time
from pathlib import Path
from stem_actors.adapters.sqlite import SqliteFile
from stem_actors.clock import SystemClock
from stem_actors.model.lapse import Retention
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Done, Message

file = SqliteFile(Path(sys.argv[1]), "stem", SystemClock(), "normal")
broker = file.broker(Retention(1.0, 5, 1000.0, 1000.0))
results = file.results(1000.0)
"""

# Publishes batches and says, after each call has returned, which ids are in.
PRODUCER = """
name, batches, size = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(1, batches + 1):
    ids = [f"{name}-{number}-{each}" for each in range(size)]
    broker.publish(name, number, [Message(task_id, "default", each % 10, b"x" * 100) for each, task_id in enumerate(ids)])
    print("\\n".join(ids), flush=True)
"""

# Settles all it gets, and says, after the answer, what was settled as its own.
CONSUMER = """
name, idle = sys.argv[2], float(sys.argv[3])
intake = broker.open_intake(["default"], name)
last = time.monotonic()
while time.monotonic() - last < idle:
    broker.sweep()
    handouts = intake.receive(20, 0.2)
    if handouts:
        last = time.monotonic()
    records = [TaskRecord(each.id, TaskState.SUCCEEDED, 0, each.state.delivery_count) for each in handouts]
    settlements = [Settlement(each.lease, Ack(), None, record) for each, record in zip(handouts, records)]
    done = [each.id for each, answer in zip(handouts, broker.settle(settlements)) if answer == Done()]
    if done:
        print("\\n".join(done), flush=True)
"""

WAITER = """
print("waiting", flush=True)
record = results.wait(["a"], 30)["a"]
print(record.payload.decode(), flush=True)
"""

RECEIVER = """
intake = broker.open_intake(["default"], "other")
print("waiting", flush=True)
print(intake.receive(1, 30)[0].id, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stem.db"


@pytest.fixture
def file(path: Path) -> SqliteFile:
    return SqliteFile(path, "stem", SystemClock(), "normal")


@pytest.fixture
def broker(file: SqliteFile) -> Iterator[SqliteBroker]:
    broker = file.broker(RETENTION)
    yield broker
    broker.close()


@pytest.fixture
def start(path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a child on the file; none outlives its test."""
    children = []

    def start_child(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + program, str(path), *map(str, arguments)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield start_child
    for child in children:
        child.kill()
        child.communicate()


def output(child: subprocess.Popen[str]) -> list[str]:
    out, errors = child.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors, errors
    return out.split()


def kill_when_it_has_said(child: subprocess.Popen[str], lines: int) -> list[str]:
    """Let it say that many lines, then kill it; what it had said."""
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    return [*said, *rest[:-1]]  # the last may be cut off, or is empty


def counts(broker: SqliteBroker) -> tuple[int, int]:
    (depth,) = broker.depths(["default"])
    return depth.pending, depth.inflight


def publish(broker: SqliteBroker, *ids: str) -> None:
    broker.publish(f"sender of {ids}", 1, [Message(task_id, "default", 5, b"body") for task_id in ids])


def test_processes_that_publish_and_consume_at_once_lose_and_double_nothing(
    broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]
) -> None:
    producers = [start(PRODUCER, f"p{number}", 100, 5) for number in range(3)]
    consumers = [start(CONSUMER, f"c{number}", 1.5) for number in range(3)]
    published = [task_id for child in producers for task_id in output(child)]
    settled = Counter(task_id for child in consumers for task_id in output(child))
    assert len(published) == 1500
    assert settled == Counter(published)
    assert counts(broker) == (0, 0)


def test_a_consumer_killed_while_it_settles_loses_nothing(
    file: SqliteFile, broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]
) -> None:
    ids = [f"task-{number}" for number in range(1000)]
    publish(broker, *ids)
    settled: list[str] = []
    for number in range(3):
        settled += kill_when_it_has_said(start(CONSUMER, f"killed-{number}", 30), 60 + 37 * number)
    settled += output(start(CONSUMER, "heir", 3))
    assert max(Counter(settled).values()) == 1, "settled is settled"
    results = file.results(1000.0)
    assert set(results.wait(ids, 0)) == set(ids)
    results.close()
    assert counts(broker) == (0, 0)


def test_a_producer_killed_between_two_calls_loses_nothing_that_a_call_returned_for(
    broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]
) -> None:
    promised = kill_when_it_has_said(start(PRODUCER, "p", 100_000, 7), 100)
    stored = {handout.id for handout in broker.open_intake(["default"], "all").receive(1_000_000, 0)}
    assert set(promised) <= stored
    assert len(stored) % 7 == 0, "a batch is in or out"


def test_a_publication_repeated_by_another_process_after_a_kill_adds_nothing(
    broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]
) -> None:
    kill_when_it_has_said(start(PRODUCER, "p", 100_000, 7), 70)
    before = counts(broker)[0]
    again = output(start(PRODUCER, "p", before // 7, 7))
    assert len(again) == before
    assert counts(broker) == (before, 0)


def test_a_result_wakes_a_waiter_in_another_process(broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]) -> None:
    publish(broker, "a")
    child = start(WAITER)
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    (handout,) = broker.open_intake(["default"], "me").receive(1, 0)
    broker.settle([Settlement(handout.lease, Ack(), None, TaskRecord("a", TaskState.SUCCEEDED, 0, 1, payload=b"42"))])
    assert output(child) == ["42"]


def test_a_publication_wakes_a_consumer_in_another_process(
    broker: SqliteBroker, start: Callable[..., subprocess.Popen[str]]
) -> None:
    child = start(RECEIVER)
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    publish(broker, "a")
    assert output(child) == ["a"]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection holds the write lock, as a process stopped inside a write does."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def test_a_file_locked_by_another_is_unavailable_by_the_deadline_and_nothing_is_lost(path: Path) -> None:
    file = SqliteFile(path, "stem", SystemClock(), "normal", write_deadline=0.3)
    broker = file.broker(RETENTION)
    publish(broker, "a", "b")
    intake = broker.open_intake(["default"], "me")
    (handout,) = intake.receive(1, 0)
    with locked(path):
        for attempt in (
            lambda: broker.publish("sender", 1, [Message("c", "default", 5, b"")]),
            lambda: broker.settle([Settlement(handout.lease, Ack())]),
            lambda: intake.receive(1, 10),
        ):
            start = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=r"stem\.db"):
                attempt()
            assert 0.25 < time.monotonic() - start < 5
        assert counts(broker) == (1, 1), "who only reads is not held up"
    broker.publish("sender", 1, [Message("c", "default", 5, b"")])
    assert broker.settle([Settlement(handout.lease, Ack())]) == [Done()]
    assert [each.id for each in intake.receive(10, 0)] == ["b", "c"]
    broker.close()


def test_a_lock_held_for_a_while_only_delays(path: Path, broker: SqliteBroker) -> None:
    publish(broker, "a")
    done = threading.Event()

    def publish_and_say() -> None:
        publish(broker, "b")
        done.set()

    with locked(path):
        thread = threading.Thread(target=publish_and_say)
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(PATIENCE)
    thread.join()
    assert counts(broker) == (2, 0)


def test_a_full_disk_refuses_a_publication_and_still_settles_once_there_is_room(file: SqliteFile, broker: SqliteBroker) -> None:
    publish(broker, *(f"task-{number}" for number in range(20)))
    intake = broker.open_intake(["default"], "me")
    handouts = intake.receive(10, 0)
    limit_size(file, 10)
    big = [Message(f"big-{number}", "default", 5, b"x" * 10_000) for number in range(1000)]
    with pytest.raises(StorageFull):
        broker.publish("sender", 1, big)
    assert counts(broker) == (10, 10), "all or none"
    assert broker.settle([Settlement(each.lease, Ack()) for each in handouts]) == [Done()] * 10, "settling makes room"
    limit_size(file, 1_000_000)
    broker.publish("sender", 1, big)
    assert counts(broker) == (1010, 0)


def limit_size(file: SqliteFile, pages: int) -> None:
    """The file may grow by that many pages."""
    with file.database.write() as connection:
        connection.execute("SELECT 1")
    writer = file.database._writer
    assert writer is not None
    (used,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {used + pages}")


def test_a_forked_child_opens_the_file_anew(broker: SqliteBroker) -> None:
    publish(broker, "a")
    pid = os.fork()
    if pid == 0:  # the child: nothing here may raise into pytest
        try:
            publish(broker, "from the child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    publish(broker, "b")
    handouts = broker.open_intake(["default"], "me").receive(10, 0)
    assert [each.id for each in handouts] == ["a", "from the child", "b"]
    assert broker.settle([Settlement(each.lease, Retry(0)) for each in handouts]) == [Done()] * 3
