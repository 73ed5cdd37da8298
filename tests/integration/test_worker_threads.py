"""A worker whose executors run several sync tasks at once, in threads."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import TaskCancelled, TaskFailed
from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.child import Shape
from stem_actors.executors.frames import EndKind, InterruptKind
from stem_actors.executors.launcher import ExecutorLauncher
from stem_actors.executors.process import ExecutorProcess
from stem_actors.model.shutdown import ShutdownMode
from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import SOON, Journal, is_running, until
from tests.integration.test_executor_process import CODEC, Executor

ROUGH = ApplicationSource("tests.fixtures.rough_app:app")
MIXED = ApplicationSource("tests.fixtures.tasks_app:app")
LONG = 60.0


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[Fleet]:
    """For workers of one executor with five threads."""
    fleet = Fleet(tmp_path, "sqlite", concurrency=1, threads=5)
    yield fleet
    fleet.close()


def test_tasks_run_at_once_in_one_process_each_knowing_which_it_is(threads: Fleet) -> None:
    threads.start(source=ROUGH)
    started = time.monotonic()
    handles = [threads.enqueue("who", 0.5) for _ in range(20)]
    answers = [handle.get(SOON) for handle in handles]
    assert [answer[:2] for answer in answers] == [[handle.id, handle.id] for handle in handles]
    assert len({answer[2] for answer in answers}) == 5
    assert time.monotonic() - started < 7.0  # one after another they would take 10 s


def test_more_than_there_are_threads_wait_for_one(threads: Fleet, journal: Journal) -> None:
    threads.start(source=ROUGH)
    handles = [threads.enqueue("nap", journal.path, f"w{n}", 0.3) for n in range(12)]
    pids = {handle.get(SOON) for handle in handles}
    assert len(pids) == 1
    running = most = 0
    for line in journal.lines():
        running += 1 if "starts" in line else -1
        most = max(most, running)
    assert most == 5
    assert set(journal.words().values()) == {1}


def test_short_tasks_run_once_each(threads: Fleet, journal: Journal) -> None:
    threads.start(source=ROUGH)
    words = [f"w{n}" for n in range(400)]
    for handle in threads.enqueue_many("note", journal.path, words):
        handle.get(SOON)
    assert journal.words() == Counter(words)


def test_coroutines_and_threads_live_side_by_side(threads: Fleet, journal: Journal) -> None:
    threads.start(source=MIXED)
    handles = [threads.enqueue(task, journal.path, f"{task}{n}", 0.3) for n in range(5) for task in ("nap", "anap")]
    assert len({handle.get(SOON) for handle in handles}) == 2
    assert set(journal.words().values()) == {1}


# ---------------------------------------------------------------- interrupts


@pytest.mark.parametrize("how", ["sleep", "progress", "bytecode"])
def test_a_soft_limit_is_raised_once_in_the_thread_that_it_is_for(threads: Fleet, journal: Journal, how: str) -> None:
    threads.start(source=ROUGH)
    neighbours = [threads.enqueue("spin", journal.path, f"n{n}", how, 1.5) for n in range(3)]
    handle = threads.enqueue("spin", journal.path, "x", how, soft_time_limit=0.3)
    assert handle.get(SOON) == "the task ran longer than its soft time limit"
    assert [each.get(SOON) for each in neighbours] == [each.id for each in neighbours]
    assert set(journal.words().values()) == {1}


def test_a_soft_limit_that_is_not_caught_fails_the_task_alone(threads: Fleet, journal: Journal) -> None:
    threads.start(source=ROUGH)
    neighbour = threads.enqueue("nap", journal.path, "n", 1.0)
    handle = threads.enqueue("who", 0.6, soft_time_limit=0.2, max_retries=0)  # heard of when its sleep is over
    with pytest.raises(TaskFailed, match="SoftTimeLimitExceeded: the task ran longer") as caught:
        handle.get(SOON)
    assert "rough_app.py" in (caught.value.stack or "")
    assert neighbour.get(SOON)
    assert journal.words() == {"n-starts": 1, "n": 1}


def test_a_revoked_task_ends_and_its_neighbours_go_on(threads: Fleet, journal: Journal) -> None:
    threads.start(source=ROUGH)
    neighbour = threads.enqueue("nap", journal.path, "n", 1.0)
    handle = threads.enqueue("spin", journal.path, "x")
    journal.wait_for("x-starts")
    handle.revoke(terminate=True, reason="enough")
    with pytest.raises(TaskCancelled, match="enough"):
        handle.get(SOON)
    assert neighbour.get(SOON)
    assert journal.words() == {"n-starts": 1, "n": 1, "x-starts": 1}


def test_a_revoked_task_that_is_blocked_in_a_call_takes_the_process_along_and_its_neighbours_are_released(
    threads: Fleet, journal: Journal
) -> None:
    threads.start(source=ROUGH)
    neighbour = threads.enqueue("nap", journal.path, "n", 2.0)
    handle = threads.enqueue("nap", journal.path, "x", LONG)
    journal.wait_for("n-starts")
    journal.wait_for("x-starts")
    handle.revoke(terminate=True, reason="enough")
    with pytest.raises(TaskCancelled, match="enough"):
        handle.get(SOON)
    assert neighbour.get(SOON)
    assert (neighbour.status().attempt, neighbour.status().delivery_count) == (0, 2)
    assert journal.words() == {"n-starts": 2, "n": 1, "x-starts": 1}


def test_a_storm_of_revocations_hits_nothing_else(threads: Fleet, journal: Journal) -> None:
    worker = threads.start(source=ROUGH)
    pids = until(lambda: worker.reports.executors)
    handles = [threads.enqueue("spin", journal.path, f"w{n}", "bytecode", 0.02) for n in range(150)]
    for handle in handles[::3]:
        handle.revoke(terminate=True)
    for handle in handles[1::3] + handles[2::3]:
        assert handle.get(SOON) == handle.id
    for handle in handles[::3]:
        try:
            assert handle.get(SOON) == handle.id
        except TaskCancelled:
            pass
    assert worker.reports.executors == pids
    assert worker.reports.counters["stem_executor_deaths_total"] == 0


def test_a_hard_limit_kills_the_process_and_its_neighbours_are_released(threads: Fleet, journal: Journal) -> None:
    threads.start(source=ROUGH)
    neighbours = [threads.enqueue("nap", journal.path, f"n{n}", 2.5) for n in range(3)]
    for n in range(3):
        journal.wait_for(f"n{n}-starts")
    handle = threads.enqueue("nap", journal.path, "x", LONG, hard_time_limit=0.5, max_retries=0)
    with pytest.raises(TaskFailed, match="HardTimeLimitExceeded"):
        handle.get(SOON)
    for each in neighbours:
        each.get(SOON)
        assert (each.status().attempt, each.status().delivery_count) == (0, 2)
    starts = journal.words()
    assert (starts["x-starts"], starts["n0-starts"], starts["n0"]) == (1, 2, 1)


@pytest.fixture
def executor() -> Iterator[Executor]:
    """One executor with eight threads."""
    preload = ("stem_actors.executors.preload", "stem_actors.codecs.msgpack", "stem_actors.app")
    launcher = ExecutorLauncher("forkserver", ROUGH, CODEC, "test", ("warning", "plain"), preload, lambda: None, Shape(threads=8))
    launcher.prepare()
    launcher.launch(0)
    launched = launcher.launch_next()
    assert launched is not None
    assert isinstance(launched[2], ExecutorProcess), launched[2]
    executor = Executor(launched[2])
    executor.read_until(lambda: executor.frames)
    yield executor
    launcher.reap_all(SOON)
    executor.process.close()


def test_interrupts_hit_no_code_of_ours(executor: Executor, journal: Journal) -> None:
    """A storm of them over many short runs: each run ends once, and the stream stays readable."""
    calls = (("echo", 1), ("spin", journal.path, "x", "progress", 0.01), ("spin", journal.path, "x", "bytecode", 0.01))
    handed = []
    for number in range(80):
        claims = executor.hand(*[calls[(number + n) % 3] for n in range(8)])
        handed += claims
        until_then = time.perf_counter() + number * 0.0002  # at every moment of a run
        while time.perf_counter() < until_then:
            pass
        for claim in claims:
            executor.process.interrupt(claim, InterruptKind.SOFT_LIMIT if claim % 2 else InterruptKind.REVOKED)
        executor.read_until(lambda: not executor.process.handed)
    assert sorted(claim for claim, _, _ in executor.ended) == handed
    kinds = Counter(kind for _, kind, _ in executor.ended)
    assert set(kinds) == {EndKind.RETURNED, EndKind.INTERRUPTED, EndKind.RAISED}
    assert {detail[0] for _, kind, detail in executor.ended if kind is EndKind.RAISED} == {"SoftTimeLimitExceeded"}
    assert not executor.process.has_exited()


# ---------------------------------------------------------------- deaths


def test_neighbours_of_a_task_that_kills_their_process_run_alone_afterwards(threads: Fleet, journal: Journal) -> None:
    threads.set(max_deliveries=2)
    threads.start(source=ROUGH)
    neighbours = [threads.enqueue("nap", journal.path, f"n{n}", 1.0) for n in range(4)]
    for n in range(4):
        journal.wait_for(f"n{n}-starts")
    poison = threads.enqueue("die", journal.path, "dies", "segfault")
    for handle in neighbours:
        handle.get(SOON)
        assert handle.status().attempt == 0
    dead = threads.wait_dead_letter(poison)
    assert (dead.reason, dead.meta) == ("poison", {"deaths": ["signal 11 (SIGSEGV)"] * 2})
    assert journal.words()["dies"] == 3, "once with others, then alone"
    starts = [line.split()[0] for line in journal.lines() if line.startswith("n")][4:]
    assert [word.removesuffix("-starts") for word in starts[::2]] == starts[1::2], "one by one"


def test_a_thread_may_fork_and_only_the_original_reports(threads: Fleet, journal: Journal) -> None:
    worker = threads.start(source=ROUGH)
    neighbour = threads.enqueue("nap", journal.path, "n", 1.0)
    journal.wait_for("n-starts")
    for how in ("returns", "raises", "exits", "dies"):
        assert threads.enqueue("fork", journal.path, how, how).get(SOON) == how
    assert neighbour.get(SOON) in worker.reports.executors
    assert journal.words() == {"n-starts": 1, "n": 1, "returns": 1, "raises": 1, "exits": 1, "dies": 1}


def test_a_stopped_executor_releases_all_that_it_runs(threads: Fleet, journal: Journal) -> None:
    threads.set(visibility_timeout=1.5)
    threads.start(source=ROUGH)
    handles = [threads.enqueue("nap", journal.path, f"w{n}", 1.0) for n in range(5)]
    pids = {int(journal.wait_for(f"w{n}-starts")[0]) for n in range(5)}
    (pid,) = pids
    os.kill(pid, signal.SIGSTOP)
    for handle in handles:
        assert handle.get(SOON) not in pids
        assert (handle.status().attempt, handle.status().delivery_count) == (0, 2)
    assert not is_running(pid)
    running = most = 0
    for line in journal.lines()[5:]:
        running += 1 if "starts" in line else -1
        most = max(most, running)
    assert most > 1, "released, they still share a process"


def test_an_executor_with_threads_is_replaced_after_so_many_tasks(threads: Fleet, journal: Journal) -> None:
    threads.set(max_tasks_per_executor=7)
    threads.start(source=ROUGH)
    handles = [threads.enqueue("nap", journal.path, f"w{n}", 0.02 * (n % 3)) for n in range(30)]
    runs = Counter(handle.get(SOON) for handle in handles)
    assert max(runs.values()) == 7
    assert set(journal.words().values()) == {1}


@pytest.mark.parametrize("task", ["spin", "nap"])
def test_what_runs_in_threads_is_handed_back_when_the_worker_leaves(threads: Fleet, journal: Journal, task: str) -> None:
    threads.set(drain_timeout=0.3, soft_grace_period=0.5)
    worker = threads.start(source=ROUGH)
    for n in range(3):
        threads.enqueue(task, journal.path, f"w{n}", *(("sleep",) if task == "spin" else ()), LONG)
    for n in range(3):
        journal.wait_for(f"w{n}-starts")
    worker.shut_down(ShutdownMode.WARM)
    assert worker.wait() == 0
    (depth,) = threads.app.stores.broker.depths(["default"])
    assert (depth.pending, depth.inflight, depth.dead) == (3, 0, 0)
