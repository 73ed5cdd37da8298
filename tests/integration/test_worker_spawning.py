"""Tasks that enqueue tasks and wait for them, where the broker is the memory of the program that started the worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.fixtures import spawning_app as spawning
from tests.fixtures.waiting import SOON


@pytest.fixture(scope="module", params=[1, 3], ids=["processes", "threads"], autouse=True)
def worker(request: pytest.FixtureRequest) -> Iterator[None]:
    plain = spawning.app.settings
    spawning.app.settings = replace(plain, threads=request.param)
    with spawning.app.worker(concurrency=2):
        yield
    spawning.app.settings = plain
    spawning.app.close()


def test_what_a_task_enqueues_goes_through_its_worker() -> None:
    by_context, plain, state = spawning.asks_sync.options(headers={"tenant": "a"}).enqueue(1).get(SOON)
    assert (by_context["number"], plain["number"], state) == (1, 2, "succeeded")
    assert by_context["headers"] == {"tenant": "a"}
    assert set(by_context["meta"]) == {"stem.parentTaskId", "stem.parentAttempt", "stem.rootTaskId"}
    assert (plain["headers"], plain["meta"]) == ({}, {})


def test_a_coroutine_may_enqueue_and_wait() -> None:
    first, second = spawning.asks_async.enqueue(1).get(SOON)
    assert (first["number"], second["number"]) == (1, 2)
    assert first["meta"]["stem.parentTaskId"] == second["meta"]["stem.rootTaskId"]


def test_a_thread_of_a_task_may_enqueue_and_wait() -> None:
    assert [result["number"] for result in spawning.asks_thread.enqueue(4).get(SOON)] == [4]


def test_many_at_once_lose_nothing() -> None:
    assert spawning.makes_many.enqueue(40).get(SOON) == 2 * sum(range(40))


def test_the_brokers_refusal_reaches_the_task() -> None:
    assert spawning.same_id.enqueue().get(SOON) == "refused"


def test_a_unique_task_that_is_enqueued_twice_is_one() -> None:
    assert spawning.same_key.enqueue(1).get(SOON) == [1, True, False]


def test_what_has_no_way_to_the_broker_says_so() -> None:
    assert "memory://" in spawning.revokes.enqueue().get(SOON)
    assert spawning.copies.enqueue().get(SOON) == 7
