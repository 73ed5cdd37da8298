"""A worker whose executors are stopped, worn out, bloated, or will not die."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from stem_actors import TaskCancelled, TaskFailed
from stem_actors.actors import executor_watch
from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.process import ExecutorProcess
from tests.fixtures.fleet import Fleet, RunningWorker
from tests.fixtures.waiting import SOON, Journal, is_running, until

ROUGH = ApplicationSource("tests.fixtures.rough_app:app")
MIXED = ApplicationSource("tests.fixtures.tasks_app:app")


def states(worker: RunningWorker) -> dict[int, str]:
    return {each["pid"]: each["state"] for each in worker.reports.snapshot.get("extras", {}).get("executors", [])}


# ---------------------------------------------------------------- stopped


def test_an_executor_that_stays_stopped_is_replaced_and_its_task_runs_again_uncharged(processes: Fleet, journal: Journal) -> None:
    processes.set(visibility_timeout=1.5, concurrency=1)
    worker = processes.start(source=ROUGH)
    handle = processes.enqueue("nap", journal.path, "x", 0.7)
    pid = int(journal.wait_for("x-starts")[0])
    stopped = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    assert handle.get(SOON) != pid
    assert 1.4 < time.monotonic() - stopped < 6.0
    assert not is_running(pid)
    assert journal.words() == {"x-starts": 2, "x": 1}
    assert (handle.status().attempt, handle.status().delivery_count) == (0, 2)
    processes.wait_counted(worker, "stem_redeliveries_total default interrupted")
    processes.wait_counted(worker, "stem_executor_deaths_total w-1 ours")


def test_an_executor_that_is_stopped_for_a_while_goes_on(processes: Fleet, journal: Journal) -> None:
    processes.set(visibility_timeout=20.0, concurrency=1)
    worker = processes.start(source=ROUGH)
    handle = processes.enqueue("nap", journal.path, "x", 0.5)
    pid = int(journal.wait_for("x-starts")[0])
    os.kill(pid, signal.SIGSTOP)
    until(lambda: states(worker).get(pid) == "stopped")
    os.kill(pid, signal.SIGCONT)
    assert handle.get(SOON) == pid
    assert journal.words() == {"x-starts": 1, "x": 1}
    assert processes.enqueue("note", journal.path, "y").get(SOON) == pid


@pytest.mark.parametrize("task", ["note", "anap"])
def test_what_waits_inside_a_stopped_executor_goes_to_another(processes: Fleet, journal: Journal, task: str) -> None:
    """Long before the lease: nothing had been started."""
    processes.set(concurrency=2)
    worker = processes.start(source=MIXED)
    arguments = (0.0,) if task == "anap" else ()
    handles = [processes.enqueue(task, journal.path, f"warm{n}", *arguments) for n in range(20)]
    pids = {handle.get(SOON) for handle in handles}
    os.kill(min(pids), signal.SIGSTOP)
    started = time.monotonic()
    handles = [processes.enqueue(task, journal.path, f"w{n}", *arguments) for n in range(40)]
    assert min(pids) not in {handle.get(SOON) for handle in handles}
    assert time.monotonic() - started < 5.0
    assert {word: count for word, count in journal.words().items() if count != 1} == {}
    os.kill(min(pids), signal.SIGCONT)
    until(lambda: states(worker).get(min(pids)) == "idle")
    assert processes.enqueue(task, journal.path, "last", *arguments).get(SOON)


def test_an_executor_that_is_killed_and_does_not_die_is_replaced_and_makes_the_worker_unready(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hanging disk cannot be had for a test: here the signals of its worker do not reach it."""
    monkeypatch.setattr(executor_watch, "UNKILLABLE_AFTER", 0.5)
    immortal: set[int] = set()
    plain = ExecutorProcess.kill
    monkeypatch.setattr(ExecutorProcess, "kill", lambda self: None if self.pid in immortal else plain(self))
    fleet = Fleet(tmp_path, "memory", visibility_timeout=1.0, concurrency=1)
    try:
        worker = fleet.start(source=ROUGH)
        handle = fleet.enqueue("nap", journal.path, "x", 0.2)
        pid = int(journal.wait_for("x-starts")[0])
        immortal.add(pid)
        os.kill(pid, signal.SIGSTOP)
        journal.wait_for("x-starts", times=2)
        assert handle.get(SOON) != pid
        assert (handle.status().attempt, handle.status().delivery_count) == (0, 2)
        until(lambda: list(worker.reports.reasons) == ["1 executor(s) do not die of SIGKILL: they hang in the kernel"])
        assert fleet.enqueue("echo", "unready is not idle").get(SOON)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not worker.reports.reasons)
        until(lambda: not is_running(pid))
    finally:
        immortal.clear()
        fleet.close()


# ---------------------------------------------------------------- deaf


def test_a_task_that_catches_its_soft_limit_and_goes_on_ends_by_the_hard_one(processes: Fleet, journal: Journal) -> None:
    worker = processes.start(source=ROUGH, concurrency=1)
    handle = processes.enqueue("deaf", journal.path, "x", soft_time_limit=0.3, hard_time_limit=1.0, max_retries=0)
    with pytest.raises(TaskFailed, match=r"HardTimeLimitExceeded: the task ran longer than its hard time limit of 1 s"):
        handle.get(SOON)
    assert journal.words() == {"x-starts": 1, "x-SoftTimeLimitExceeded": 1}
    dead = processes.wait_dead_letter(handle)
    assert dead.reason == "max-retries-exhausted"
    assert dead.state is not None
    assert (dead.state.deaths, dead.state.lapses) == ((), 0)
    assert processes.enqueue("echo", "next").get(SOON) == "next"
    processes.wait_counted(worker, "stem_executor_deaths_total w-1 ours")


@pytest.mark.parametrize("how", ["hard", "revoked"])
def test_a_task_that_blocks_every_signal_is_killed(processes: Fleet, journal: Journal, how: str) -> None:
    processes.start(source=ROUGH, concurrency=1)
    limits = {"soft_time_limit": 0.2, "hard_time_limit": 0.6} if how == "hard" else {}
    handle = processes.enqueue("armoured", journal.path, "x", max_retries=0, **limits)
    journal.wait_for("x")
    if how == "revoked":
        handle.revoke(terminate=True, reason="enough")
    with pytest.raises((TaskFailed, TaskCancelled), match="HardTimeLimit" if how == "hard" else "enough"):
        handle.get(SOON)
    assert processes.enqueue("echo", "next").get(SOON) == "next"
    assert journal.words() == {"x": 1}


# ---------------------------------------------------------------- recycled


def test_an_executor_is_replaced_after_so_many_tasks(tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stem.pool")
    fleet = Fleet(tmp_path, "memory", concurrency=2, max_tasks_per_executor=7)
    try:
        worker = fleet.start(source=ROUGH)
        handles = [fleet.enqueue("note", journal.path, f"w{n}") for n in range(100)]
        runs = Counter(handle.get(SOON) for handle in handles)
        assert max(runs.values()) == 7
        assert len(runs) >= 15
        assert journal.words() == {f"w{n}": 1 for n in range(100)}
        assert all(handle.status().delivery_count == 1 for handle in handles)
        fleet.wait_counted(worker, "stem_executor_recycled_total w-1 max-tasks", 13)
        assert worker.reports.counters["stem_executor_deaths_total"] == 0
        lines = [record for record in caplog.records if record.name == "stem.pool"]
        assert re.search(r"leaves after 7 task\(s\) with \d+ MiB and is replaced: max-tasks$", lines[0].getMessage())
        assert (lines[0].__dict__["reason"], lines[0].__dict__["tasks"]) == ("max-tasks", 7)
        assert lines[0].__dict__["memory_bytes"] > 1 << 20
    finally:
        fleet.close()


def test_an_executor_of_coroutines_is_replaced_when_those_that_run_have_ended(processes: Fleet, journal: Journal) -> None:
    processes.set(concurrency=1, max_tasks_per_executor=5)
    processes.start(source=MIXED)
    handles = [processes.enqueue("anap", journal.path, f"w{n}", 0.05 * (n % 5)) for n in range(17)]
    runs = Counter(handle.get(SOON) for handle in handles)
    assert max(runs.values()) == 5
    assert {journal.words()[f"w{n}"] for n in range(17)} == {1}
    assert all(handle.status().delivery_count == 1 for handle in handles)


def test_an_executor_is_replaced_when_a_task_left_it_too_large(processes: Fleet) -> None:
    processes.set(concurrency=1, max_memory_per_executor=200 << 20)
    worker = processes.start(source=ROUGH)
    first = processes.enqueue("grow", 20).get(SOON)
    assert processes.enqueue("grow", 250).get(SOON) == first
    processes.wait_counted(worker, "stem_executor_recycled_total w-1 memory")
    until(lambda: not is_running(first))
    assert processes.enqueue("grow", 1).get(SOON) != first
    assert worker.reports.counters["stem_executor_deaths_total"] == 0


def test_a_large_executor_lets_its_task_end(processes: Fleet, journal: Journal) -> None:
    processes.set(concurrency=1, max_memory_per_executor=200 << 20)
    worker = processes.start(source=ROUGH)
    first = processes.enqueue("grow", 250).get(SOON)
    handle = processes.enqueue("nap", journal.path, "x", 2.0)
    later = processes.enqueue("note", journal.path, "later")
    assert handle.get(SOON) in (first, *worker.reports.executors)
    assert later.get(SOON) != first
    assert journal.words() == {"x-starts": 1, "x": 1, "later": 1}
    processes.wait_counted(worker, "stem_executor_recycled_total w-1 memory")


def test_an_executor_that_is_to_leave_and_does_not_is_killed(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_watch, "_LEAVE_WITHIN", 0.3)
    monkeypatch.setattr(ExecutorProcess, "request_stop", lambda self: None)
    fleet = Fleet(tmp_path, "memory", concurrency=1, max_tasks_per_executor=1)
    try:
        fleet.start(source=ROUGH)
        pids = [fleet.enqueue("note", journal.path, f"w{n}").get(SOON) for n in range(3)]
        assert len(set(pids)) == 3
    finally:
        fleet.close()
