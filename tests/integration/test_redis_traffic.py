"""What goes over the wire to Redis: next to nothing from who is idle, and far fewer commands than tasks under load."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.client import Call, CallOptions
from tests.fixtures.fleet import Fleet
from tests.fixtures.node import Place
from tests.fixtures.redis_server import Monitor, RedisServer, own_server

TASKS = 5_000
ROUNDS = 4
WATCHED = 10.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_server() as server:
        yield server


def test_a_busy_worker_sends_far_fewer_commands_than_it_runs_tasks(server: RedisServer, tmp_path: Path) -> None:
    """Enqueued in bulk, executed, results stored, settled, all else going on meanwhile: 0.15 commands a task at most.

    A machine whose processors are taken by others makes a worker settle in smaller pieces, so one round of four has to keep it.
    """
    fleet = Fleet(tmp_path, "redis", broker_url=server.url)
    rounds: list[Counter[str]] = []
    try:
        worker = fleet.start()
        options = CallOptions("default", 0, 3, None, {}, {})
        with Monitor(server) as monitor:
            for count in range(TASKS, TASKS * (ROUNDS + 1), TASKS):
                fleet.app.enqueue_many([Call("echo", (number,), {}, options) for number in range(TASKS)])
                fleet.wait_counted(worker, "stem_tasks_succeeded_total", count)
                rounds.append(monitor.take())
                if rounds[-1].total() <= 0.15 * TASKS:
                    break
    finally:
        fleet.close()
    assert rounds[-1]["EVALSHA"] > 0
    assert rounds[-1].total() <= 0.15 * TASKS, rounds


def test_an_idle_node_sends_two_commands_a_second_for_each_worker_at_most(server: RedisServer, tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        place.start("--broker", server.tcp_url, "--workers", "2", "--concurrency", "1")
        with Monitor(server) as monitor:
            start = time.monotonic()
            time.sleep(WATCHED)  # the time is what is measured
            counts, took = monitor.take(), time.monotonic() - start
    finally:
        place.close()
    assert counts["EVALSHA"] > 0
    assert counts.total() / took <= 2 * 2, counts
