"""Middleware where it runs, around enqueueing in a producer and around tasks in executors; and payload types at both ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import Middleware, MiddlewareError, Settings, Stem, TaskFailed, UsageError
from stem_actors.errors import MalformedMessage
from stem_actors.executors.application import ApplicationSource
from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import SOON
from tests.fixtures.wrapped_app import Money, register_money

WRAPPED = ApplicationSource("tests.fixtures.wrapped_app:app")


@pytest.fixture
def wrapped(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "sqlite")
    fleet.start(source=WRAPPED)
    yield fleet
    fleet.close()


def test_middleware_goes_around_sync_and_async_tasks_in_order(wrapped: Fleet) -> None:
    assert wrapped.enqueue("say", "hello").get(SOON) == ["outer", ["inner", "hello by inner"]]
    assert wrapped.enqueue("asay", "hello").get(SOON) == ["outside", "hello"]


def test_middleware_sees_errors_as_what_the_next_raises(wrapped: Fleet) -> None:
    assert wrapped.enqueue("say", "swallow").get(SOON) == "swallowed swallow"


@pytest.mark.parametrize("task", ["say", "asay"])
def test_a_task_that_its_middleware_does_not_run_has_failed(wrapped: Fleet, task: str) -> None:
    with pytest.raises(TaskFailed, match="middleware did not run the task"):
        wrapped.enqueue(task, "skip", max_retries=0).get(SOON)


def test_middleware_around_enqueue_may_change_the_call(tmp_path: Path) -> None:
    from tests.fixtures import hand_worker
    from tests.fixtures.wrapped_app import stamp

    with Stem(f"sqlite:///{tmp_path}/stem.db", settings=Settings(), middleware=[Middleware(enqueue=stamp)]) as app:
        task = app.task(name="t")(str)
        task.options(headers={"own": "1"}).enqueue(1)
        app.enqueue_many([task.call(2)])
        headers = [hand_worker.take(app).envelope.headers for _ in range(2)]
        assert headers == [{"own": "1", "stamp": "t"}, {"stamp": "t"}]


def test_middleware_that_does_not_enqueue_is_an_error_and_nothing_is_sent(tmp_path: Path) -> None:
    with Stem(f"sqlite:///{tmp_path}/stem.db", settings=Settings()) as app:
        app.middleware(enqueue=lambda call, call_next: "id")
        task = app.task(name="t")(str)
        for enqueue in (lambda: task.enqueue(1), lambda: app.enqueue_many([task.call(1)])):
            with pytest.raises(MiddlewareError, match="did not enqueue the task"):
                enqueue()
        assert app.stores.broker.depths() == []


def test_middleware_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    async def around(run: object, call_next: object) -> None: ...

    app = Stem("memory://", settings=Settings())
    with pytest.raises(UsageError, match="coroutine function"):
        app.middleware(execute=around)
    with pytest.raises(UsageError, match="must be a coroutine function"):
        app.middleware(aexecute=lambda run, call_next: call_next(run))


# ---------------------------------------------------------------- payload types


def test_an_applications_own_types_are_arguments_and_results(wrapped: Fleet) -> None:
    register_money(wrapped.app)
    assert wrapped.enqueue("double", Money(4)).get(SOON) == ["outside", Money(8)]


def test_a_result_of_a_type_that_the_producer_does_not_know_is_an_error(wrapped: Fleet) -> None:
    register_money(wrapped.app)
    handle = wrapped.enqueue("double", Money(4))
    handle.get(SOON)
    with (
        Stem(settings=wrapped.settings) as stranger,
        pytest.raises(MalformedMessage, match=r"app\.payload_type\(20"),
    ):
        stranger.handle(handle.id).get(0)


def test_an_argument_of_a_type_that_the_executor_does_not_know_is_set_aside(wrapped: Fleet) -> None:
    wrapped.app.payload_type(21, Money, lambda money: b"1", lambda data: Money(1))
    handle = wrapped.enqueue("double", Money(4))
    dead = wrapped.wait_dead_letter(handle)
    assert dead.reason == "undecodable-args"
    with pytest.raises(TaskFailed, match="payload type 21 is not known"):
        handle.get(SOON)
