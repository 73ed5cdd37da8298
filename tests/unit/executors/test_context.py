from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from threading import Thread
from typing import Any

import pytest

from stem_actors.errors import UsageError
from stem_actors.executors import context
from stem_actors.executors.context import RetryRequested, TaskContext, current_task


class RecordingLink:
    """Keeps what a task says."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def send_progress(self, claim: int, percent: float, data: Mapping[str, Any]) -> None:
        self.said.append(("progress", claim, percent, dict(data)))

    def send_heartbeat(self, claim: int) -> None:
        self.said.append(("heartbeat", claim))

    def extend_lease(self, claim: int, by: float | None) -> None:
        self.said.append(("extend", claim, by))

    def is_cancelled(self, claim: int) -> bool:
        return ("cancelled", claim) in self.said


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


@pytest.fixture
def task(link: RecordingLink) -> Iterator[TaskContext]:
    running = TaskContext(link, 3, "id-1", "shop.mail", 1, {"tenant": "a"}, {"k": 1})
    token = context.enter(running)
    yield running
    context.leave(token)


def test_outside_of_a_task_there_is_no_current_task() -> None:
    assert context.find_task() is None
    with pytest.raises(UsageError, match="outside of a task"):
        current_task()


def test_inside_of_a_task_it_is_the_one_that_runs(task: TaskContext) -> None:
    assert current_task() is task
    assert (task.id, task.attempt, task.headers) == ("id-1", 1, {"tenant": "a"})
    assert task.logger.name == "stem.task.shop.mail"


def test_what_a_task_says_names_its_claim(task: TaskContext, link: RecordingLink) -> None:
    task.progress(0.5, {"rows": 10})
    task.heartbeat()
    task.extend_lease(5.0)
    assert link.said == [("progress", 3, 0.5, {"rows": 10}), ("heartbeat", 3), ("extend", 3, 5.0)]
    assert not task.is_cancelled
    link.said.append(("cancelled", 3))
    assert task.is_cancelled


def test_a_thread_knows_its_task_when_it_runs_in_a_copy_of_the_context(task: TaskContext) -> None:
    seen: list[TaskContext | None] = []
    scope = copy_context()
    for target in (lambda: seen.append(context.find_task()), lambda: scope.run(lambda: seen.append(context.find_task()))):
        thread = Thread(target=target)
        thread.start()
        thread.join()
    assert seen == [None, task]


def test_a_retry_carries_delay_and_overrides(task: TaskContext) -> None:
    with pytest.raises(RetryRequested) as caught:
        task.retry(countdown=5, max_retries=9, soft_time_limit=1.5, hard_time_limit=2)
    assert caught.value.delay == 5.0
    assert caught.value.overrides == {"max_retries": 9, "stem.softTimeLimitMs": 1500, "stem.timeLimitMs": 2000}


def test_a_retry_without_a_time_leaves_it_to_the_policy(task: TaskContext) -> None:
    with pytest.raises(RetryRequested) as caught:
        task.retry()
    assert caught.value.delay is None
    assert caught.value.overrides == {}


def test_the_eta_of_a_retry_wins_over_its_countdown(task: TaskContext) -> None:
    with pytest.raises(RetryRequested) as caught:
        task.retry(countdown=5, eta=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert caught.value.delay == 0.0
