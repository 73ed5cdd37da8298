"""A worker some of which is killed, stopped or cut off: nothing is lost, and nothing runs twice without a reason."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from stem_actors import TaskFailed, TaskState
from stem_actors.codecs.msgpack import decode_payload
from stem_actors.executors.application import ApplicationSource
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.ports import Broker
from stem_actors.supervision.child import ChildSpec
from stem_actors.worker import Worker
from tests.fixtures.fleet import Fleet, ThreadWorker
from tests.fixtures.waiting import SOON, Journal, is_running, until

LONG = 60.0
ACTORS = ("settler", "lease_renewer", "executor_pool", "consumer", "housekeeper", "heartbeat", "revoke_listener")


def expect_once(journal: Journal, words: list[str]) -> None:
    assert {word: count for word, count in journal.words().items() if count != 1} == {}
    assert set(journal.words()) == set(words)


# ---------------------------------------------------------------- poison


def test_a_task_that_kills_its_executor_is_set_aside_with_its_causes_and_neighbours_run_once(
    fleet: Fleet, journal: Journal
) -> None:
    fleet.set(max_deliveries=3)
    fleet.start()
    before = [fleet.enqueue("short", journal.path, f"a{n}") for n in range(60)]
    poison = fleet.enqueue("die", journal.path, "dies", "kill")
    after = [fleet.enqueue("short", journal.path, f"b{n}") for n in range(60)]
    for handle in before + after:
        handle.get(SOON)
    dead = fleet.wait_dead_letter(poison)
    assert (dead.reason, dead.meta) == ("poison", {"deaths": ["signal 9 (SIGKILL)"] * 3})
    assert dead.state is not None
    assert (dead.state.attempt, dead.state.lapses, len(dead.state.deaths)) == (0, 0, 3)
    assert journal.words().pop("dies") == 3
    assert {word: count for word, count in journal.words().items() if count != 1} == {"dies": 3}
    assert all(handle.status().attempt == 0 for handle in before + after)
    with pytest.raises(TaskFailed, match="WorkerLost"):
        poison.get(SOON)


def test_a_task_whose_executor_died_goes_on_at_once(fleet: Fleet, journal: Journal) -> None:
    """Within a fraction of its lease, and the attempt is not charged."""
    worker = fleet.start(concurrency=1)
    handle = fleet.enqueue("die_once", journal.path, "x", "segfault")
    assert handle.get(SOON) == "x"
    assert (handle.status().attempt, handle.status().delivery_count) == (0, 2)
    assert journal.words() == {"x": 2}
    fleet.wait_counted(worker, "stem_executor_deaths_total")


def test_neighbours_of_a_coroutine_that_kills_its_process_run_alone_afterwards(fleet: Fleet, journal: Journal) -> None:
    fleet.set(max_deliveries=2)
    fleet.start(concurrency=1)
    neighbours = [fleet.enqueue("anap", journal.path, f"w{n}", 0.6) for n in range(5)]
    for n in range(5):
        journal.wait_for(f"w{n}-starts")
    poison = fleet.enqueue("adie", journal.path, "dies", "kill")
    for handle in neighbours:
        handle.get(SOON)
    dead = fleet.wait_dead_letter(poison)
    assert dead.reason == "poison"
    assert dead.state is not None
    assert (dead.state.attempt, dead.state.deaths) == (0, ("signal 9 (SIGKILL)",) * 2)
    assert journal.words() == {"dies": 3, **{f"w{n}-starts": 2 for n in range(5)}, **{f"w{n}": 1 for n in range(5)}}
    starts = [line for line in journal.lines() if line.startswith("w")][5:]
    assert [line.removesuffix("-starts") for line in starts[::2]] == starts[1::2], "one by one, each with a process of its own"
    assert all(handle.status().attempt == 0 for handle in neighbours)


# ---------------------------------------------------------------- actors and processes killed


@pytest.mark.parametrize(
    "actor",
    [
        *("settler", "executor_pool", "consumer"),
        *(
            pytest.param(each, marks=pytest.mark.soak)
            for each in ("lease_renewer", "housekeeper", "heartbeat", "revoke_listener")
        ),
    ],
)
def test_an_actor_killed_again_and_again_costs_nothing_but_what_the_pool_was_running(
    processes: Fleet, journal: Journal, actor: str
) -> None:
    worker = processes.start()
    words = [f"w{n}" for n in range(400)]
    handles = processes.enqueue_many("short", journal.path, words)
    for seen in (40, 120, 200, 280):
        until(lambda seen=seen: len(journal.lines()) >= seen)  # type: ignore[misc]
        worker.kill_actor(actor)  # to no effect while it is restarted
    for handle in handles:
        handle.get(LONG)
    processes.wait_counted(worker, f"stem_actor_restarts_total {actor} crashed", 2)
    assert set(journal.words()) == set(words)
    if actor != "executor_pool":
        expect_once(journal, words)
    else:
        assert max(journal.words().values()) <= 5
    assert processes.dead_letters() == {}
    assert {handle.status().attempt for handle in handles} == {0}


def test_all_actors_killed_in_turn_while_a_task_runs_leave_it_alone(processes: Fleet, journal: Journal) -> None:
    """But for the pool, whose executors end with it."""
    processes.set(visibility_timeout=1.5)
    worker = processes.start()
    handle = processes.enqueue("nap", journal.path, "x", 3.0)
    journal.wait_for("x-starts")
    for actor in ACTORS:
        if actor != "executor_pool":
            worker.kill_actor(actor)
            processes.wait_counted(worker, f"stem_actor_restarts_total {actor} crashed")
    handle.get(SOON)
    assert journal.words() == {"x-starts": 1, "x": 1}
    assert processes.enqueue("echo", 1).get(SOON) == 1


def test_a_pool_that_is_killed_hands_on_what_it_held(processes: Fleet, journal: Journal) -> None:
    worker = processes.start(concurrency=1)
    handles = [processes.enqueue("nap", journal.path, f"w{n}", 0.5) for n in range(3)]
    journal.wait_for("w0-starts")
    worker.kill_actor("executor_pool")
    for handle in handles:
        handle.get(SOON)
    assert journal.words() == {"w0-starts": 2, "w1-starts": 1, "w2-starts": 1, "w0": 1, "w1": 1, "w2": 1}
    assert {handle.status().attempt for handle in handles} == {0}


def test_executors_killed_at_random_lose_nothing(processes: Fleet, journal: Journal) -> None:
    worker = processes.start(max_deliveries=50)
    words = [f"w{n}" for n in range(300)]
    handles = [processes.enqueue("short", journal.path, word) for word in words]
    for _ in range(6):
        for pid in worker.reports.executors[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        seen = worker.reports.snapshot.get("timestamp")
        until(lambda seen=seen: worker.reports.snapshot.get("timestamp") != seen)  # type: ignore[misc]
    for handle in handles:
        handle.get(LONG)
    assert set(journal.words()) == set(words)
    assert sum(journal.words().values()) <= 300 + 6 + 6
    assert processes.dead_letters() == {}


def test_a_forkserver_that_is_killed_is_started_anew(processes: Fleet, journal: Journal) -> None:
    worker = processes.start()
    first = [processes.enqueue("nap", journal.path, word, 0.8) for word in ("a", "b")]
    journal.wait_for("a-starts")
    journal.wait_for("b-starts")
    executors = until(lambda: worker.reports.executors)
    os.kill(psutil.Process(executors[0]).ppid(), signal.SIGKILL)
    until(lambda: not any(is_running(pid) for pid in executors))
    for handle in first:
        handle.get(SOON)
    assert journal.words() == {"a-starts": 2, "a": 1, "b-starts": 2, "b": 1}
    assert {handle.status().attempt for handle in first} == {0}
    assert processes.enqueue("echo", 1).get(SOON) == 1


def test_executors_end_with_their_worker(processes: Fleet, journal: Journal) -> None:
    worker = processes.start_process()
    processes.enqueue("hold", journal.path, "x", "match", LONG)
    journal.wait_for("x-starts")
    executors = until(lambda: worker.reports.executors)
    worker.send(signal.SIGKILL)
    until(lambda: not any(is_running(pid) for pid in executors), 5.0)


def test_what_a_killed_worker_ran_is_run_by_another(processes: Fleet, journal: Journal) -> None:
    processes.set(visibility_timeout=1.0)
    first, second = processes.start_process(queues=("one",)), processes.start_process(queues=("one", "default"))
    handle = processes.enqueue("nap", journal.path, "other", 0.1)  # the second is at work
    handle.get(SOON)
    second.send(signal.SIGSTOP)
    handle = processes.enqueue("nap", journal.path, "x", 4.0, queue="one")  # long enough to be killed in, on any machine
    journal.wait_for("x-starts")
    first.send(signal.SIGKILL)
    second.send(signal.SIGCONT)
    handle.get(SOON)
    assert journal.words()["x-starts"] == 2
    assert (handle.status().meta["worker"], handle.status().attempt) == ("w-2", 0)


# ---------------------------------------------------------------- stopped, cut off


def test_a_worker_that_was_stopped_for_too_long_is_refused(processes: Fleet, journal: Journal) -> None:
    processes.set(visibility_timeout=1.0, concurrency=1)
    first = processes.start_process()
    handle = processes.enqueue("nap", journal.path, "x", 2.5)
    journal.wait_for("x-starts")
    first.send(signal.SIGSTOP)
    try:
        second = processes.start_process()
        journal.wait_for("x-starts", times=2)
        handle.get(SOON)
        before = handle.status()
    finally:
        first.send(signal.SIGCONT)
    until(lambda: first.reports.counters["stem_results_stale_total"] + first.reports.counters["stem_leases_lost_total"])
    assert handle.status() == before
    assert before.meta["worker"] == second.name
    assert before.payload is not None
    assert decode_payload(before.payload) in second.reports.executors
    assert journal.words()["x-starts"] == 2
    assert (before.attempt, before.delivery_count) == (0, 2)
    assert processes.enqueue("echo", 1).get(SOON) == 1


def test_a_worker_that_was_stopped_for_a_moment_goes_on_with_its_leases(processes: Fleet, journal: Journal) -> None:
    """Longer than its lease, but nobody took it: who sweeps again after a gap gives holders time to renew."""
    processes.set(visibility_timeout=1.0, concurrency=1)
    worker = processes.start_process()
    handle = processes.enqueue("nap", journal.path, "x", 4.0)
    journal.wait_for("x-starts")
    worker.send(signal.SIGSTOP)
    time.sleep(2.5)  # the time itself is what is tested
    worker.send(signal.SIGCONT)
    handle.get(SOON)
    assert journal.words() == {"x-starts": 1, "x": 1}


def test_tasks_go_on_while_the_broker_is_away_and_are_settled_when_it_is_back(processes: Fleet, journal: Journal) -> None:
    worker = processes.start()
    words = [f"w{n}" for n in range(200)]
    handles = [processes.enqueue("short", journal.path, word) for word in words]
    until(lambda: len(journal.lines()) >= 40)
    connection = sqlite3.connect(processes.folder / "stem.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        seen = until(lambda: worker.reports.reasons, what="it is unready")
        assert "broker unreachable" in seen[0]
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    for handle in handles:
        handle.get(LONG)
    until(lambda: not worker.reports.reasons)
    expect_once(journal, words)


class HangingBroker:
    """A broker whose `depths` never answers once it is told to hang."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.hangs = False
        self.released = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def depths(self, *arguments: Any) -> Any:
        if self.hangs:
            self.released.wait(LONG)
        return self._broker.depths(*arguments)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers may take a second, instead of half a minute."""
    plain = Worker._children

    def children(self: Worker) -> list[ChildSpec]:
        return [replace(spec, handler_deadline=1.0) if spec.handler_deadline else spec for spec in plain(self)]

    monkeypatch.setattr(Worker, "_children", children)


@pytest.mark.usefixtures("impatient")
def test_a_handler_that_never_returns_ends_the_worker(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "memory")
    broker = HangingBroker(fleet.app.stores.broker)
    try:
        worker = fleet.start(stores=replace(fleet.app.stores, broker=cast(Broker, broker)))
        assert isinstance(worker, ThreadWorker)
        broker.hangs = True
        assert worker.wait() == 70
        assert "heartbeat" in worker.fatal[0]
    finally:
        broker.released.set()
        fleet.close()


# ---------------------------------------------------------------- leaving


def test_a_worker_that_leaves_hands_back_what_it_has_not_started(processes: Fleet, journal: Journal) -> None:
    first = processes.start_process(concurrency=1, prefetch_multiplier=10)
    handles = [processes.enqueue("nap", journal.path, f"w{n}", 1.0) for n in range(4)]
    journal.wait_for("w0-starts")
    first.shut_down(ShutdownMode.WARM)
    processes.start(concurrency=4)
    for handle in handles:
        handle.get(SOON)
    assert first.wait() == 0
    expect_once(journal, [word for n in range(4) for word in (f"w{n}", f"w{n}-starts")])
    assert [handle.status().meta["worker"] for handle in handles] == ["w-1", "w-2", "w-2", "w-2"]
    assert {handle.status().attempt for handle in handles} == {0}


@pytest.mark.parametrize(
    ("task", "mode"),
    [
        ("nap", ShutdownMode.WARM),
        ("anap", ShutdownMode.WARM),
        ("deaf", ShutdownMode.WARM),
        ("nap", ShutdownMode.SOFT),
        ("anap", ShutdownMode.HARD),
        ("deaf", ShutdownMode.HARD),
    ],
)
def test_what_does_not_end_in_time_is_handed_back_uncharged(
    processes: Fleet, journal: Journal, task: str, mode: ShutdownMode
) -> None:
    processes.set(drain_timeout=0.3, soft_grace_period=0.3)
    worker = processes.start_process()
    handle = processes.enqueue(task, journal.path, "x", *(() if task == "deaf" else (LONG,)))
    journal.wait_for("x-starts")
    worker.shut_down(mode)
    assert worker.wait() == 0
    (depth,) = processes.app.stores.broker.depths(["default"])
    assert (depth.pending, depth.inflight, depth.dead) == (1, 0, 0)
    assert handle.status().state in (TaskState.QUEUED, TaskState.RUNNING)
    with contextlib.closing(processes.app.stores.broker.open_intake(["default"], "test#1")) as intake:
        (handout,) = intake.receive(1, 0)
    assert handout.state is not None
    assert (handout.state.attempt, handout.state.deaths, handout.state.lapses) == (0, (), 0)


def test_an_executor_that_dies_of_its_own_accord_again_and_again_is_started_ever_later(tmp_path: Path) -> None:
    """Its application says hello and ends the process a moment later, with no task to blame."""
    (tmp_path / "short_lived.py").write_text(
        "import os, threading\nfrom stem_actors import Stem\napp = Stem()\n"
        f"open({str(tmp_path / 'starts')!r}, 'ab', buffering=0).write(b'x')\nthreading.Timer(0.05, os._exit, (1,)).start()\n"
    )
    fleet = Fleet(tmp_path, "sqlite", concurrency=1)
    try:
        fleet.start(source=ApplicationSource("short_lived", None, (), str(tmp_path)), is_ready=False)
        until(lambda: (tmp_path / "starts").exists() and (tmp_path / "starts").stat().st_size >= 4)
        started = time.monotonic()
        until(lambda: (tmp_path / "starts").stat().st_size >= 6)
        assert time.monotonic() - started > 3.0, "the fifth and sixth start wait for 1.6 and 3.2 s"
    finally:
        fleet.close()
