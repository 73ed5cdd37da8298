"""How tasks go wrong with their process: what becomes of them, of their neighbours, of the slot, and what is told."""

from __future__ import annotations

import re

import pytest

from stem_actors import TaskFailed
from stem_actors.executors.application import ApplicationSource
from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import SOON, Journal, until

ROUGH = ApplicationSource("tests.fixtures.rough_app:app")


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("segfault", "signal 11 (SIGSEGV)"),
        ("_exit", "exit code 3"),
        ("_exit-0", "exit code 0"),
        ("abort", "signal 6 (SIGABRT)"),
        ("oom", "signal 9 (SIGKILL)"),
        ("group", "signal 9 (SIGKILL)"),
        ("forks", "exit code 4"),
        ("overflows", "signal 11 (SIGSEGV)"),
        ("processor-time", "signal 24 (SIGXCPU)"),
        ("closes", "exit code 71, since the task had closed its executor's connection to the worker"),
        ("closes-and-stays", "signal 9 (SIGKILL), since the task had closed its executor's connection to the worker"),
    ],
)
def test_a_task_that_ends_its_process_is_set_aside_with_the_causes(
    processes: Fleet, journal: Journal, how: str, cause: str
) -> None:
    """One executor, so the neighbours had been handed to it, or come to its successor."""
    processes.set(concurrency=1, max_deliveries=2)
    worker = processes.start(source=ROUGH)
    before = [processes.enqueue("note", journal.path, f"a{n}") for n in range(20)]
    poison = processes.enqueue("die", journal.path, "dies", how)
    after = [processes.enqueue("note", journal.path, f"b{n}") for n in range(20)]
    for handle in before + after:
        handle.get(SOON)
        assert handle.status().attempt == 0
    with pytest.raises(TaskFailed) as caught:
        poison.get(SOON)
    assert "WorkerLost" in str(caught.value)
    assert cause in str(caught.value)
    dead = processes.wait_dead_letter(poison)
    assert (dead.reason, dead.meta) == ("poison", {"deaths": [cause] * 2})
    assert dead.state is not None
    assert (dead.state.attempt, dead.state.lapses) == (0, 0)
    assert {word: count for word, count in journal.words().items() if count != 1} == {"dies": 2}
    assert processes.enqueue("echo", "next").get(SOON) == "next"
    processes.wait_counted(worker, "stem_executor_deaths_total w-1 " + re.split(r" \(|,", cause)[0], 2)


@pytest.mark.parametrize(
    ("how", "told", "is_retried"),
    [
        ("sys.exit", r"SystemExit: 3", True),
        ("memory", r"MemoryError", True),
        ("unpicklable", r"ResultRejected: task 'fail' returned: .*lock", False),
        ("function", r"ResultRejected: task 'fail' returned: .*function", False),
        ("huge", r"ResultRejected: task 'fail' returned: .*3.?000", False),
    ],
)
def test_a_task_that_fails_in_a_rough_way_fails_alone_and_its_executor_lives(
    processes: Fleet, journal: Journal, how: str, told: str, is_retried: bool
) -> None:
    processes.set(concurrency=1, max_address_space_per_executor=2 << 30)
    worker = processes.start(source=ROUGH)
    pid = processes.enqueue("note", journal.path, "first").get(SOON)
    handle = processes.enqueue("fail", journal.path, "x", how, max_retries=0 if is_retried else 2)
    neighbours = [processes.enqueue("note", journal.path, f"n{n}") for n in range(5)]
    with pytest.raises(TaskFailed) as caught:
        handle.get(SOON)
    assert re.search(told, str(caught.value)), str(caught.value)
    assert {neighbour.get(SOON) for neighbour in neighbours} == {pid}
    dead = processes.wait_dead_letter(handle)
    assert dead.reason == "max-retries-exhausted"
    assert re.search(told, str(dead.meta["error"]))
    assert handle.status().attempt == 0
    assert set(journal.words().values()) == {1}
    assert worker.reports.counters["stem_executor_deaths_total"] == 0


def test_what_filled_the_memory_is_let_go_of_before_anything_else_runs(processes: Fleet, journal: Journal) -> None:
    processes.set(concurrency=1, max_address_space_per_executor=1 << 30)
    processes.start(source=ROUGH)
    pids = set()
    for n in range(3):
        handle = processes.enqueue("fail", journal.path, f"x{n}", "memory", max_retries=0)
        with pytest.raises(TaskFailed, match="MemoryError") as caught:
            handle.get(SOON)
        assert "exhausts" in (caught.value.stack or "")
        pids.add(processes.enqueue("note", journal.path, f"n{n}").get(SOON))
    assert len(pids) == 1


def test_an_application_that_needs_more_memory_than_it_may_have_ends_the_worker_and_says_so(processes: Fleet) -> None:
    worker = processes.start_process(source=ROUGH, is_ready=False, max_address_space_per_executor=10 << 20)
    assert worker.wait() == 64


@pytest.mark.parametrize("how", ["returns", "raises", "exits", "dies"])
def test_a_copy_that_a_task_forked_ends_and_reports_nothing(processes: Fleet, journal: Journal, how: str) -> None:
    processes.set(concurrency=1)
    worker = processes.start(source=ROUGH)
    handles = [processes.enqueue("fork", journal.path, f"x{n}", how) for n in range(3)]
    assert [handle.get(SOON) for handle in handles] == ["x0", "x1", "x2"]
    pid = processes.enqueue("note", journal.path, "next").get(SOON)
    assert until(lambda: worker.reports.executors) == [pid]
    assert set(journal.words().values()) == {1}
    assert worker.reports.counters["stem_executor_deaths_total"] == 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_task_may_start_a_pool_of_processes(processes: Fleet, method: str) -> None:
    processes.set(concurrency=1)
    worker = processes.start(source=ROUGH)
    assert processes.enqueue("pool", method).get(60.0) == [[1, 2, 3], 7]
    assert worker.reports.counters["stem_executor_deaths_total"] == 0
