"""Workers on Redis while their server, or the way to it, fails: nothing is lost, and the worker goes on by itself."""

from __future__ import annotations

import datetime as dt
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stem_actors import TaskState
from stem_actors.clock import SystemClock
from stem_actors.errors import StorageFull
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.worker import Worker
from stem_actors.worker_orders import WorkerOrders
from stem_chaos.link import Proxy
from tests.fixtures.fleet import SOURCE, Fleet, ProcessWorker, Reports
from tests.fixtures.outages import LONG, all_run, result_of
from tests.fixtures.redis_server import RedisServer, own_server
from tests.fixtures.waiting import SOON, Journal, until

AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
TASKS = 600


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_server(*AOF) as server:
        yield server


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """Between the workers and the server; the producer goes past it."""
    with Proxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


@pytest.fixture
def fleet(server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "redis", broker_url=server.tcp_url, visibility_timeout=3.0)
    yield fleet
    fleet.close()


def start_through(proxy: Proxy, fleet: Fleet) -> ProcessWorker:
    """A worker on the other side of the proxy."""
    return fleet.start_process(broker_url=f"redis://127.0.0.1:{proxy.port}/0")


def has_noticed(worker: ProcessWorker) -> None:
    until(lambda: any("unreachable" in reason for reason in worker.reports.reasons), what="the worker has noticed")


def has_recovered(worker: ProcessWorker) -> None:
    """It is ready, and an outage was a state to it and no crash."""
    until(lambda: not worker.reports.reasons, LONG, "ready again")
    assert worker.process.poll() is None
    assert worker.reports.counters["stem_actor_restarts_total"] == 0


# ---------------------------------------------------------------- the server


def test_a_server_that_is_killed_and_comes_back_costs_no_task(fleet: Fleet, server: RedisServer, journal: Journal) -> None:
    worker = fleet.start_process()

    def die_and_return() -> None:
        until(lambda: server.command("INFO", "persistence")["aof_buffer_length"] == 0, what="what was enqueued is in the file")
        server.kill(signal.SIGKILL)
        has_noticed(worker)
        server.start()

    all_run(fleet, journal, TASKS, die_and_return)
    has_recovered(worker)


def test_a_server_that_restarts_while_a_task_runs_does_not_interrupt_it(
    fleet: Fleet, server: RedisServer, journal: Journal
) -> None:
    worker = fleet.start_process()
    handle = fleet.enqueue("nap", journal.path, "x", 4.0)
    journal.wait_for("x-starts")
    server.kill(signal.SIGTERM)
    has_noticed(worker)
    server.start()
    assert result_of(handle)
    assert journal.words() == {"x-starts": 1, "x": 1}
    has_recovered(worker)


def test_scripts_groups_and_connections_taken_away_under_load_cost_no_task(
    fleet: Fleet, server: RedisServer, journal: Journal
) -> None:
    """What was in flight when the group went is handed out once more."""
    worker = fleet.start_process()
    all_run(
        fleet,
        journal,
        TASKS,
        lambda: server.command("SCRIPT", "FLUSH"),
        lambda: server.command("CLIENT", "KILL", "TYPE", "normal"),
        lambda: server.command("CLIENT", "KILL", "TYPE", "pubsub"),
        lambda: server.command("XGROUP", "DESTROY", "stem:{default}:p0", "stem"),
        lambda: server.command("CLIENT", "KILL", "TYPE", "normal"),
    )
    has_recovered(worker)


def test_a_server_emptied_under_an_idle_worker_gets_its_next_task_done(fleet: Fleet, server: RedisServer) -> None:
    worker = fleet.start_process()
    assert fleet.enqueue("echo", 1).get(SOON) == 1
    until(lambda: server.command("EXISTS", "stem:{default}:waiters"), what="the worker waits")
    server.command("FLUSHALL")
    assert fleet.enqueue("echo", 2).get(SOON) == 2
    has_recovered(worker)


def test_a_replica_is_waited_for_until_it_is_promoted(fleet: Fleet, server: RedisServer, journal: Journal) -> None:
    """Connected to a primary that is away it keeps its data, and takes nothing."""
    worker = fleet.start_process()
    handle = fleet.enqueue("nap", journal.path, "x", 1.0)
    journal.wait_for("x-starts")
    server.command("REPLICAOF", "127.0.0.1", "1")
    has_noticed(worker)
    assert any("It is a replica" in reason or "READONLY" in reason for reason in worker.reports.reasons)
    journal.wait_for("x")
    server.command("REPLICAOF", "NO", "ONE")
    result_of(handle)
    assert journal.words() == {"x-starts": 1, "x": 1}
    has_recovered(worker)


def test_a_full_server_refuses_the_producer_and_drains(fleet: Fleet, server: RedisServer, journal: Journal) -> None:
    worker = fleet.start_process()

    def fill_up() -> None:
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StorageFull, match="maxmemory"):
            fleet.enqueue("note", journal.path, "refused")

    all_run(fleet, journal, TASKS, fill_up)
    has_recovered(worker)
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert fleet.enqueue("echo", 1).get(SOON) == 1


# ---------------------------------------------------------------- the network


def test_three_resets_within_two_seconds_cost_no_task(fleet: Fleet, proxy: Proxy, journal: Journal) -> None:
    worker = start_through(proxy, fleet)
    resets: list[float] = []

    def reset_thrice() -> None:
        for _ in range(3):
            resets.append(time.monotonic())
            proxy.reset()
            threading.Event().wait(0.6)

    all_run(fleet, journal, TASKS, reset_thrice)
    assert resets[-1] - resets[0] < 2
    has_recovered(worker)


@pytest.mark.parametrize("seconds", [7.0, pytest.param(20.0, marks=pytest.mark.soak)])
def test_a_network_that_swallows_everything_costs_no_task_and_no_run(
    fleet: Fleet, proxy: Proxy, journal: Journal, seconds: float
) -> None:
    """Longer than an answer is waited for, and than a lease. The holder renews first when it is back."""
    worker = start_through(proxy, fleet)
    running = fleet.enqueue("nap", journal.path, "running", seconds + 3.0)
    journal.wait_for("running-starts")
    proxy.blackhole()
    start = time.monotonic()
    waiting = [fleet.enqueue("note", journal.path, f"w{number}") for number in range(5)]
    has_noticed(worker)
    until(lambda: time.monotonic() > start + seconds, LONG)
    proxy.heal()
    for handle in [running, *waiting]:
        assert handle.get(LONG)
    assert journal.words() == {"running-starts": 1, "running": 1, **{f"w{number}": 1 for number in range(5)}}
    has_recovered(worker)


# ---------------------------------------------------------------- the worker


def test_a_worker_stopped_for_two_leases_is_refused_and_the_other_ones_result_stands(fleet: Fleet, journal: Journal) -> None:
    fleet.set(visibility_timeout=1.0)
    stopped = fleet.start_process(concurrency=1)
    handle = fleet.enqueue("nap", journal.path, "x", 1.5)
    journal.wait_for("x-starts")
    stopped.send(signal.SIGSTOP)
    try:
        start = time.monotonic()
        other = fleet.start_process(concurrency=1)
        journal.wait_for("x-starts", LONG, times=2)
        until(lambda: time.monotonic() > start + 2.0)
    finally:
        stopped.send(signal.SIGCONT)
    handle.get(LONG)
    record = handle.status()
    assert (record.state, record.delivery_count) == (TaskState.SUCCEEDED, 2)
    assert record.meta["worker"].startswith(other.name)
    until(
        lambda: stopped.reports.counters["stem_leases_lost_total"] + stopped.reports.counters["stem_results_stale_total"],
        what="the refusal is counted",
    )
    has_recovered(stopped)


# ---------------------------------------------------------------- whose clock counts


class Shifted(SystemClock):
    """A host whose clock is wrong."""

    def __init__(self, by: float) -> None:
        self.by = by

    def now(self) -> float:
        return super().now() + self.by


@pytest.fixture
def start_shifted(fleet: Fleet) -> Iterator[Callable[[float], Reports]]:
    """Start a worker with one executor on threads of this process, by whose clock it is so many seconds later."""
    running: list[tuple[Worker, threading.Thread]] = []

    def start(by: float) -> Reports:
        reports = Reports()
        orders = WorkerOrders(replace(fleet.settings, concurrency=1), "shifted", SOURCE)
        worker = Worker(
            orders,
            fleet.app.stores,
            lambda status: reports.take(status.reasons, status.growth, status.snapshot),
            clock=Shifted(by),
        )
        thread = threading.Thread(target=worker.run, daemon=True)
        running.append((worker, thread))
        thread.start()
        until(lambda: not reports.reasons, LONG, "ready")
        return reports

    yield start
    for worker, thread in running:
        worker.shut_down(ShutdownMode.HARD)
        thread.join(SOON)


@pytest.mark.parametrize("shift", [3600.0, -3600.0])
def test_expiry_is_judged_by_the_servers_clock_whatever_the_workers_says(
    fleet: Fleet, journal: Journal, start_shifted: Callable[[float], Reports], shift: float
) -> None:
    """Both when a task is fetched and when it has waited in the pool, behind a nap of the only executor."""
    late = fleet.enqueue("note", journal.path, "late", expires=0.01)
    enqueued_at = fleet.app.stores.broker.now()
    until(lambda: fleet.app.stores.broker.now() > enqueued_at + 0.02)
    reports = start_shifted(shift)
    fleet.enqueue("nap", journal.path, "first", 0.8)
    journal.wait_for("first-starts")
    expiring = fleet.enqueue("note", journal.path, "expires-in-the-pool", expires=0.3)
    lasting = fleet.enqueue("note", journal.path, "lasts", expires=60.0)
    lasting.get(LONG)
    for each in (late, expiring):
        until(lambda each=each: each.status().state is TaskState.CANCELLED)  # type: ignore[misc]
        assert each.status().delivery_count == 1, "it was not handed back"
    assert journal.words() == {"first-starts": 1, "first": 1, "lasts": 1}
    seen = dt.datetime.fromisoformat(reports.snapshot["timestamp"]).timestamp()
    assert abs(seen - time.time()) < 60, "heartbeats are dated by the server's clock too"
