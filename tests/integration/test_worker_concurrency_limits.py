"""Workers that run tasks with concurrency limits: never more at a time than they say, whoever dies, and nobody is held up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Task
from stem_actors.adapters.memory.rate_limits import MemoryRateLimits
from stem_actors.executors.application import ApplicationSource
from stem_actors.model.concurrency import Place
from stem_actors.model.shutdown import ShutdownMode
from tests.fixtures import unique_app
from tests.fixtures.fleet import Fleet, ProcessWorker
from tests.fixtures.redis_server import new_namespace, own_server, shared_url
from tests.fixtures.waiting import SOON, Journal, until

SOURCE = ApplicationSource("tests.fixtures.unique_app:app")


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    where = {"broker_url": shared_url(), "namespace": new_namespace()} if request.param == "redis" else {}
    fleet = Fleet(tmp_path, request.param, **where)
    yield fleet
    fleet.close()


@pytest.fixture(params=["sqlite", "redis"])
def killable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Workers that are processes, with short leases."""
    where = {"broker_url": shared_url(), "namespace": new_namespace()} if request.param == "redis" else {}
    fleet = Fleet(tmp_path, request.param, visibility_timeout=1.5, **where)
    yield fleet
    fleet.close()


def start(fleet: Fleet, **settings: Any) -> Any:
    return fleet.start(source=SOURCE, **settings)


def most_at_once(journal: Journal, forgotten: float = 0.0) -> int:
    """How many ran at the same time, at most. A run without an end was killed, and counts for `forgotten` seconds."""
    events: list[tuple[float, int]] = []
    begun: dict[str, list[float]] = {}
    for line in journal.lines():
        word, what, at = line.split()
        events.append((float(at), 1 if what == "begins" else -1))
        begun.setdefault(word, []).append(float(at)) if what == "begins" else begun[word].pop(0)
    events += [(at + forgotten, -1) for left in begun.values() for at in left]
    most = running = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def _has_lines(journal: Journal, least: int) -> bool:
    return len(journal.lines()) >= least


def test_no_more_run_at_once_than_the_limit_says_in_all_workers_together(fleet: Fleet, journal: Journal) -> None:
    task = unique_app.define(fleet.app)["two"]
    for _ in range(2):
        start(fleet)
    handles = fleet.app.enqueue_many([task.call(journal.path, f"w{number}", "0.05") for number in range(30)])
    assert [handle.get(SOON) for handle in handles] == [f"w{number}" for number in range(30)]
    assert most_at_once(journal) == 2
    assert [handle.status().attempt for handle in handles] == [0] * 30


def test_work_without_a_limit_is_not_held_up(fleet: Fleet, journal: Journal, tmp_path: Path) -> None:
    tasks, gate = unique_app.define(fleet.app), tmp_path / "gate"
    start(fleet, concurrency=3)
    limited = fleet.app.enqueue_many([tasks["shared_a"].call(journal.path, f"w{number}", str(gate)) for number in range(40)])
    free = fleet.app.enqueue_many([tasks["plain"].call(journal.path, f"free{number}") for number in range(20)])
    assert [handle.get(SOON) for handle in free] == [f"free{number}" for number in range(20)]
    assert most_at_once(Journal(tmp_path)) <= 3
    assert sum(handle.status().state.is_final for handle in limited) == 0
    gate.touch()
    assert limited[0].get(SOON) == "w0"


def test_each_value_of_a_header_counts_apart_and_a_shared_key_together(fleet: Fleet, journal: Journal, tmp_path: Path) -> None:
    tasks, gate = unique_app.define(fleet.app), tmp_path / "gate"
    start(fleet, concurrency=6)
    for tenant in ("a", "a", "b", "c"):
        tasks["for_tenant"].options(headers={"tenant": tenant}).enqueue(journal.path, f"tenant-{tenant}", str(gate))
    for name in ("shared_a", "shared_b"):
        tasks[name].enqueue(journal.path, name, str(gate))
    until(lambda: len(journal.lines()) == 4)
    begun = {line.split()[0] for line in journal.lines()}
    assert {"tenant-a", "tenant-b", "tenant-c"} < begun
    assert len(begun & {"shared_a", "shared_b"}) == 1
    gate.touch()
    until(lambda: len(journal.lines()) == 12)


def test_a_place_that_comes_free_is_taken_within_a_moment(fleet: Fleet, journal: Journal) -> None:
    task = unique_app.define(fleet.app)["both"]
    start(fleet)
    handles = fleet.app.enqueue_many([task.call(journal.path, f"w{number}", "0.02") for number in range(12)])
    assert {handle.get(SOON) for handle in handles} == {f"w{number}" for number in range(12)}
    assert most_at_once(journal) == 1
    moments = sorted(float(line.split()[2]) for line in journal.lines())
    idle = sorted(later - earlier for earlier, later in pairwise(moments))
    assert idle[len(idle) // 2] < 0.5, "half of all steps are runs, the others times between two"


def test_a_killed_worker_frees_its_places_when_its_leases_lapse(killable: Fleet, journal: Journal, tmp_path: Path) -> None:
    task, gate = unique_app.define(killable.app)["two"].options(), tmp_path / "gate"
    first = killable.start_process(source=SOURCE)
    held = [task.enqueue(journal.path, f"held{number}", str(gate)) for number in range(2)]
    until(lambda: len(journal.lines()) == 2)
    start(killable)
    waiting = [task.enqueue(journal.path, f"waiting{number}", str(gate)) for number in range(2)]
    first.process.popen.kill()
    first.wait()
    until(lambda: len(journal.lines()) == 4)
    gate.touch()
    assert {handle.get(SOON) for handle in [*held, *waiting]} == {"held0", "held1", "waiting0", "waiting1"}


def test_a_killed_executor_frees_its_place_at_once(killable: Fleet, journal: Journal, tmp_path: Path) -> None:
    tasks, gate = unique_app.define(killable.app), tmp_path / "gate"
    worker = killable.start_process(source=SOURCE, visibility_timeout=600.0)
    held = tasks["shared_a"].enqueue(journal.path, "held", str(gate))
    until(lambda: len(journal.lines()) == 1)
    waiting = tasks["shared_b"].enqueue(journal.path, "waiting", str(gate))
    for pid in worker.reports.executors:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(journal.lines()) == 2)
    gate.touch()
    assert [held.get(SOON), waiting.get(SOON)] == ["held", "waiting"]


def test_places_are_held_as_long_as_their_tasks_run(killable: Fleet, journal: Journal) -> None:
    tasks = unique_app.define(killable.app)
    for _ in range(2):
        start(killable)
    handles = [tasks[name].enqueue(journal.path, name, "4.0") for name in ("shared_a", "shared_b")]
    assert {handle.get(SOON) for handle in handles} == {"shared_a", "shared_b"}
    assert most_at_once(journal) == 1, "each ran for nearly three leases"


def test_a_worker_that_leaves_frees_its_places(killable: Fleet, journal: Journal, tmp_path: Path) -> None:
    tasks, gate = unique_app.define(killable.app), tmp_path / "gate"
    worker = killable.start_process(source=SOURCE, visibility_timeout=600.0)
    tasks["shared_a"].enqueue(journal.path, "held", str(gate))
    until(lambda: len(journal.lines()) == 1)
    worker.shut_down(ShutdownMode.SOFT)
    worker.wait()
    start(killable, visibility_timeout=600.0)
    until(lambda: len(journal.lines()) >= 2)
    gate.touch()


def test_without_a_limiter_nothing_runs_beyond_its_limit_but_waits(processes: Fleet, journal: Journal) -> None:
    tasks: dict[str, Task[..., str]] = unique_app.define(processes.app)
    with own_server() as server:
        server.kill()
        worker = start(processes, rate_limit_url=server.tcp_url)
        handle = tasks["shared_a"].enqueue(journal.path, "w")
        assert tasks["plain"].enqueue(journal.path, "plain").get(SOON) == "plain"
        processes.wait_counted(worker, "stem_rate_limiter_degraded_total shared_a default concurrency fail_closed", 1)
        assert handle.status().state.value == "queued"
        server.start()
        assert handle.get(SOON) == "w"


def test_actors_that_die_neither_lose_nor_double_a_place(killable: Fleet, journal: Journal) -> None:
    task = unique_app.define(killable.app)["two"]
    worker = killable.start_process(source=SOURCE)
    assert isinstance(worker, ProcessWorker)
    handles = killable.app.enqueue_many([task.call(journal.path, f"w{number}", "0.05") for number in range(30)])
    for seen, child in enumerate(("settler", "lease_renewer", "settler", "consumer")):
        until(partial(_has_lines, journal, 4 * seen + 1))
        worker.kill_actor(child)
    assert [handle.get(2 * SOON) for handle in handles] == [f"w{number}" for number in range(30)]
    assert most_at_once(journal) <= 2


def test_a_run_whose_place_is_anothers_by_now_is_handed_back_uncharged(tmp_path: Path, journal: Journal) -> None:
    """As after a time in which the limiter could not be reached: the lease is ours still, the place is not."""
    fleet = Fleet(tmp_path, "memory", visibility_timeout=1.0)
    try:
        task, gate = unique_app.define(fleet.app)["shared_a"], tmp_path / "gate"
        start(fleet)
        handle = task.enqueue(journal.path, "w", str(gate))
        until(lambda: len(journal.lines()) == 1)
        limiter = fleet.app.stores.rate_limits
        assert isinstance(limiter, MemoryRateLimits)
        with limiter._space.changed:  # in one step: the worker would take it anew
            (holder,) = limiter._space.semaphores["key:shared"].ends
            ours = Place("key:shared", 1, holder, handle.id, 0.0, 600.0)
            intruder = ours._replace(holder="intruder", task="intruder")
            limiter.release([ours])
            assert limiter.acquire([[intruder]]) == [None]
        until(lambda: fleet.app.stores.broker.depths(["default"])[0].inflight == 0)
        limiter.release([intruder])
        until(lambda: len(journal.lines()) == 2)
        gate.touch()
        assert handle.get(SOON) == "w"
        assert handle.status().attempt == 0
    finally:
        fleet.close()
