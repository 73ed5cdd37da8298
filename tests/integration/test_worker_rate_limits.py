"""Workers that run tasks with rate limits: no oftener than they say, each once, and nobody else is held up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Handle
from stem_actors.executors.application import ApplicationSource
from tests.fixtures.fleet import Fleet, ProcessWorker, ThreadWorker
from tests.fixtures.redis_server import new_namespace, own_server, shared_url
from tests.fixtures.waiting import SOON, Journal, until

SOURCE = ApplicationSource("tests.fixtures.limited_app:app")


@pytest.fixture(params=["memory", "sqlite", "redis"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    where = {"broker_url": shared_url(), "namespace": new_namespace()} if request.param == "redis" else {}
    fleet = Fleet(tmp_path, request.param, **where)
    yield fleet
    fleet.close()


def start(fleet: Fleet, **settings: Any) -> ProcessWorker | ThreadWorker:
    return fleet.start(source=SOURCE, **settings)


def moments(journal: Journal, first: str) -> list[float]:
    """When those runs began whose word begins so."""
    return sorted(float(line.split()[1]) for line in journal.lines() if line.startswith(first))


def states(handles: list[Handle[Any]]) -> list[str]:
    return [handle.status().state.value for handle in handles]


def delayed(fleet: Fleet) -> int:
    return sum(depth.delayed for depth in fleet.app.stores.broker.depths(["default"]))


def test_thirty_tasks_at_ten_a_second_take_two_seconds_and_run_once_each(fleet: Fleet, journal: Journal) -> None:
    workers = [start(fleet) for _ in range(2)]
    words = [f"ten-{number}" for number in range(30)]
    handles = fleet.enqueue_many("ten", journal.path, words)
    assert [handle.get(SOON) for handle in handles] == words
    assert set(journal.words().values()) == {1}
    began = moments(journal, "ten")
    assert began[-1] - began[0] >= 1.8  # ten at once, then twenty more, as precisely as anybody starts
    assert [handle.status().attempt for handle in handles] == [0] * 30
    reports = [worker.reports.counters for worker in workers]
    until(lambda: sum(counters["stem_tasks_deferred_total ten default limited"] for counters in reports) > 0)


def test_work_without_a_limit_is_not_held_up(fleet: Fleet, journal: Journal) -> None:
    start(fleet)
    limited = fleet.enqueue_many("hourly", journal.path, [f"hourly-{number}" for number in range(100)])
    words = [f"free-{number}" for number in range(30)]
    free = fleet.enqueue_many("free", journal.path, words)
    assert [handle.get(SOON) for handle in free] == words
    assert states(limited).count("succeeded") <= 2


def test_a_task_that_is_put_off_has_no_record_and_is_not_charged(fleet: Fleet, journal: Journal) -> None:
    start(fleet)
    handles = [fleet.enqueue("hourly", journal.path, f"hourly-{number}") for number in range(5)]
    until(lambda: delayed(fleet) == 3 and states(handles).count("succeeded") == 2)
    assert states(handles).count("queued") == 3
    assert fleet.enqueue("free", journal.path, "free").get(SOON) == "free"


def test_what_a_header_says_is_counted_apart(fleet: Fleet, journal: Journal) -> None:
    start(fleet)

    def ask(task: str, header: str, value: str) -> list[Handle[Any]]:
        return [fleet.enqueue(task, journal.path, f"{task}-{value}-{n}", headers={header: value}) for n in range(3)]

    groups = [ask("grouped", "customer", "a"), ask("grouped", "customer", "b"), ask("hourly", "tenant", "c")]
    groups.append(ask("hourly", "tenant", "d"))
    until(lambda: delayed(fleet) == 4 and [states(group).count("succeeded") for group in groups] == [2, 2, 2, 2])


def test_a_settler_that_dies_does_not_lose_the_question(fleet: Fleet, journal: Journal) -> None:
    worker = start(fleet)
    handles = [fleet.enqueue("patient", journal.path, f"w{number}") for number in range(100)]
    for _ in range(3):
        worker.kill_actor("settler")
    assert [handle.get(SOON) for handle in handles] == [f"w{number}" for number in range(100)]
    assert set(journal.words().values()) == {1}


def test_without_a_limiter_tasks_run_or_wait_as_they_say(processes: Fleet, journal: Journal) -> None:
    with own_server() as server:
        server.kill()
        worker = start(processes, rate_limit_url=server.tcp_url)
        opened = [processes.enqueue("hourly", journal.path, f"open-{number}") for number in range(5)]
        closed = processes.enqueue("patient", journal.path, "closed")
        assert [handle.get(SOON) for handle in opened] == [f"open-{number}" for number in range(5)]
        processes.wait_counted(worker, "stem_rate_limiter_degraded_total hourly default task fail_open", 5)
        processes.wait_counted(worker, "stem_rate_limiter_degraded_total patient default task fail_closed", 1)
        assert states([closed]) == ["queued"]
        server.start()
        assert closed.get(SOON) == "closed"
