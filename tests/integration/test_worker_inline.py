"""A worker whose tasks run in threads of the program, on an application that nobody else could import."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_actors import (
    ConfigError,
    RetryPolicy,
    Settings,
    SoftTimeLimitExceeded,
    Stem,
    TaskCancelled,
    TaskFailed,
    TaskState,
    current_task,
)
from tests.fixtures.waiting import SOON, until


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/stem.db"
    settings = Settings(broker_url=url, force_shutdown_after=0.5, soft_grace_period=0.5, drain_timeout=0.5)
    with Stem(settings=settings) as made:
        yield made


def test_tasks_run_in_this_program(app: Stem) -> None:
    seen: list[str] = []

    @app.task
    def note(word: str) -> int:
        seen.append(word)
        return os.getpid()

    @app.task
    async def anote(word: str) -> int:
        await asyncio.sleep(0.01)
        seen.append(word)
        return os.getpid()

    before = threading.active_count()
    with app.worker(concurrency=2, pool="inline"):
        handles = [task.enqueue(f"w{number}") for number in range(20) for task in (note, anote)]
        assert {handle.get(SOON) for handle in handles} == {os.getpid()}
    assert sorted(seen) == sorted(f"w{number}" for number in range(20) for _ in range(2))
    until(lambda: threading.active_count() <= before, what="the threads' end")


def test_failures_are_retried_and_errors_come_back(app: Stem) -> None:
    attempts: list[int] = []

    @app.task(retry_policy=RetryPolicy(default_delay=0.01), max_retries=2)
    def flaky(failures: int) -> str:
        attempts.append(current_task().attempt)
        if current_task().attempt < failures:
            raise ValueError("not yet")
        return "done"

    with app.worker(concurrency=1, pool="inline"):
        assert flaky.enqueue(2).get(SOON) == "done"
        with pytest.raises(TaskFailed, match="ValueError: not yet"):
            flaky.enqueue(9).get(SOON)
    assert attempts == [0, 1, 2, 0, 1, 2]


def test_a_task_enqueues_and_waits_like_the_program_itself(app: Stem) -> None:
    @app.task
    def child(number: int) -> Any:
        return number, current_task().meta["stem.parentTaskId"]

    @app.task
    def parent(number: int) -> Any:
        return current_task().spawn(child, number).get(SOON)

    with app.worker(concurrency=2, pool="inline"):
        handle = parent.enqueue(3)
        assert handle.get(SOON) == [3, handle.id]


def test_a_soft_limit_and_a_revocation_are_raised_between_byte_codes(app: Stem) -> None:
    started = threading.Event()

    @app.task(soft_time_limit=0.2)
    def limited() -> str:
        try:
            while True:
                time.sleep(0.005)
        except SoftTimeLimitExceeded:
            return "cleaned up"

    @app.task
    def endless() -> None:
        started.set()
        while True:
            time.sleep(0.005)

    with app.worker(concurrency=1, pool="inline"):
        assert limited.enqueue().get(SOON) == "cleaned up"
        handle = endless.enqueue()
        assert started.wait(SOON)
        handle.revoke(terminate=True, reason="enough")
        with pytest.raises(TaskCancelled, match="enough"):
            handle.get(SOON)


def test_a_task_that_hears_nothing_is_abandoned_and_its_slot_filled_again(app: Stem) -> None:
    started, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    @app.task
    def deaf() -> str:
        started.set()
        may_end.wait(SOON)  # one call in C
        has_ended.set()
        return "nobody hears"

    @app.task
    def echo(word: str) -> str:
        return word

    with app.worker(concurrency=1, pool="inline"):
        handle = deaf.enqueue()
        assert started.wait(SOON)
        handle.revoke(terminate=True)
        with pytest.raises(TaskCancelled):
            handle.get(SOON)
        assert echo.enqueue("next").get(SOON) == "next"
        may_end.set()
        assert echo.enqueue("more").get(SOON) == "more"
    assert handle.status().state is TaskState.CANCELLED


def test_a_hard_limit_is_not_enforced(app: Stem) -> None:
    @app.task(hard_time_limit=0.05, max_retries=0)
    def slow() -> float | None:
        time.sleep(0.3)
        return current_task().deadline

    with app.worker(concurrency=1, pool="inline"):
        assert slow.enqueue().get(SOON) is None


def test_another_kind_of_pool_is_refused(app: Stem) -> None:
    with pytest.raises(ConfigError, match="'threads'"), app.worker(pool="threads"):
        pass
