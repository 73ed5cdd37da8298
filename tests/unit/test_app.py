from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from stem_actors import (
    AsyncTask,
    ConfigError,
    ResultsDisabled,
    ResultTimeout,
    RetryPolicy,
    Settings,
    Stem,
    Task,
    TaskCancelled,
    TaskDefinitionError,
    TaskFailed,
    TaskState,
    UsageError,
)
from stem_actors.executors import context
from stem_actors.model.envelope import Envelope
from stem_actors.model.task import TaskOptions
from tests.fixtures import hand_worker
from tests.unit.executors.test_context import RecordingLink


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Stem]:
    with Stem(f"sqlite:///{tmp_path}/stem.db", settings=Settings()) as made:
        yield made


def double(number: int) -> int:
    """Twice as much.

    And more text.
    """
    return 2 * number


async def adouble(number: int) -> int:
    return 2 * number


def sent(app: Stem, queue: str = "default") -> Envelope:
    return hand_worker.take(app, queue).envelope


# ---------------------------------------------------------------- settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_BROKER_URL", "sqlite:///env.db")
    monkeypatch.setenv("STEM_NAMESPACE", "shop")
    assert (Stem().settings.broker_url, Stem().settings.namespace) == ("sqlite:///env.db", "shop")


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_BROKER_URL", "sqlite:///env.db")
    assert Stem(broker="memory://", backend="none").settings.broker_url == "memory://"
    assert Stem(backend="none").settings.results_are_off


def test_a_url_nobody_serves_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="broker is 'amqp://h'"):
        Stem("amqp://h")


# ---------------------------------------------------------------- definition


def test_a_task_is_called_like_its_function(app: Stem) -> None:
    task = app.task(double)
    assert task(4) == 8
    assert (task.__name__, task.__doc__) == ("double", double.__doc__)
    assert isinstance(task, Task)
    assert not isinstance(task, AsyncTask)


def test_a_coroutine_task_is_awaited_like_its_function(app: Stem) -> None:
    task = app.task(adouble)
    assert isinstance(task, AsyncTask)
    assert task.definition.is_async
    assert asyncio.run(task(4)) == 8


def test_a_task_is_named_for_module_and_function_unless_told(app: Stem) -> None:
    assert app.task(double).name == f"{__name__}.double"
    assert app.task(name="twice")(double).name == "twice"
    assert {task.name for task in app.registry} == {f"{__name__}.double", "twice"}


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"__file__": "/srv/shop/run.py"}, "run.f"),
        ({"__spec__": type("Spec", (), {"name": "shop.__main__"})}, "shop.f"),
        ({}, "main.f"),
    ],
)
def test_a_script_has_one_name_whether_run_or_imported(app: Stem, module: str, scope: dict[str, Any], name: str) -> None:
    namespace: dict[str, Any] = {"__name__": module, **scope}
    exec("def f(): pass", namespace)
    assert app.task(namespace["f"]).name == name


def test_options_are_kept_with_the_task(app: Stem) -> None:
    policy = RetryPolicy(backoff=True)
    task = app.task(queue="mail", max_retries=0, soft_time_limit=1, hard_time_limit=2, retry_policy=policy, tags=["a"])(double)
    options = task.definition.options
    assert options == TaskOptions(
        queue="mail",
        max_retries=0,
        soft_time_limit=1,
        hard_time_limit=2,
        retry_policy=policy,
        tags=["a"],
        description="Twice as much.",
    )


def test_a_name_is_taken_only_once(app: Stem) -> None:
    app.task(name="a")(double)
    with pytest.raises(TaskDefinitionError, match="'a'"):
        app.task(name="a")(adouble)


def test_options_that_contradict_each_other_are_refused_with_the_tasks_name(app: Stem) -> None:
    with pytest.raises(TaskDefinitionError, match=r"double.*soft"):
        app.task(soft_time_limit=2, hard_time_limit=1)(double)


def test_a_queue_name_must_be_one(app: Stem) -> None:
    with pytest.raises(ConfigError, match="queue is 'two words'"):
        app.task(queue="two words")(double)
    with pytest.raises(ConfigError, match="queue is 'two words'"):
        app.task(double).options(queue="two words")


# ---------------------------------------------------------------- enqueue


def test_a_call_travels_with_the_tasks_options(app: Stem) -> None:
    app.task(queue="mail", priority=12, max_retries=7, visibility_timeout=5)(double).enqueue(number=4)
    envelope = sent(app, "mail")
    assert (envelope.args, envelope.kwargs, envelope.queue) == ([], {"number": 4}, "mail")
    assert (envelope.priority, envelope.max_retries, envelope.visibility_timeout) == (9, 7, 5.0)


@pytest.mark.parametrize(
    ("options", "retries"),
    [({}, 3), ({"max_retries": 0}, 0), ({"max_retries": 1, "retry_policy": RetryPolicy(max_retries=5)}, 5)],
)
def test_retries_come_from_policy_then_task_then_settings(app: Stem, options: dict[str, Any], retries: int) -> None:
    app.task(name="t", **options)(double).enqueue(1)
    assert sent(app).max_retries == retries


def test_options_of_a_call_replace_those_of_the_task(app: Stem) -> None:
    task = app.task(queue="mail", max_retries=7)(double)
    other = task.options(queue="slow", priority=3, max_retries=1, headers={"a": "1"}, meta={"k": 1}, task_id="mine")
    assert other.options(headers={"b": "2"}, ignore_result=True, hard_time_limit=2.5).enqueue(1).id == "mine"
    envelope = sent(app, "slow")
    assert (envelope.id, envelope.priority, envelope.max_retries, envelope.headers) == ("mine", 3, 1, {"a": "1", "b": "2"})
    assert envelope.meta == {"k": 1, "stem.ignoreResult": True, "stem.timeLimitMs": 2500}
    task.enqueue(1)
    assert sent(app, "mail").max_retries == 7


@pytest.mark.parametrize(
    "moment", [lambda: 60, lambda: dt.timedelta(minutes=1), lambda: dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)]
)
def test_expires_is_a_span_or_a_moment(app: Stem, moment: Any) -> None:
    app.task(double).options(expires=moment()).enqueue(1)
    envelope = sent(app)
    assert envelope.expires_at is not None
    assert envelope.expires_at - envelope.enqueued_at == pytest.approx(60, abs=30)


def test_the_last_expires_counts(app: Stem) -> None:
    task = app.task(double).options(expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).options(expires=60)
    task.enqueue(1)
    envelope = sent(app)
    assert envelope.expires_at == envelope.enqueued_at + 60


def test_a_delayed_task_waits(app: Stem) -> None:
    task = app.task(double)
    task.options(countdown=60).enqueue(1)
    task.options(eta=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).enqueue(1)
    (depth,) = app.stores.broker.depths()
    assert (depth.pending, depth.delayed) == (0, 2)


@pytest.mark.parametrize(
    "options",
    [{"eta": dt.datetime(2030, 1, 1)}, {"task_id": "a b"}, {"max_retries": -1}, {"soft_time_limit": 2, "hard_time_limit": 1}],
)
def test_options_that_make_no_sense_are_refused(app: Stem, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        app.task(double).options(**options)


def test_calls_are_sent_together(app: Stem) -> None:
    task = app.task(double)
    handles = app.enqueue_many([task.call(1), task.options(queue="slow").call(2)])
    assert [handle.id for handle in handles] == [sent(app).id, sent(app, "slow").id]


def test_a_task_can_be_enqueued_by_a_name_nobody_knows_here(app: Stem) -> None:
    handle = app.enqueue_by_name("elsewhere.task", [1], {"b": 2}, priority=5)
    envelope = sent(app)
    assert (envelope.id, envelope.name, envelope.args, envelope.kwargs) == (handle.id, "elsewhere.task", [1], {"b": 2})
    assert (envelope.priority, envelope.max_retries) == (5, 3)


def test_a_name_that_is_known_lends_its_options(app: Stem) -> None:
    app.task(name="t", queue="mail", max_retries=1)(double)
    app.enqueue_by_name("t", [1])
    assert sent(app, "mail").max_retries == 1


# ---------------------------------------------------------------- handles


def test_a_handle_gives_what_the_task_returned(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    assert handle.status().state is TaskState.QUEUED
    hand_worker.run(app)
    assert handle.get(timeout=5) == 8
    assert app.handle(handle.id).get(timeout=0) == 8
    assert handle.status().state is TaskState.SUCCEEDED


def test_a_handle_waits_for_a_task_that_is_still_to_run(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    worker = Thread(target=hand_worker.run, args=(app,))
    worker.start()
    assert handle.get() == 8
    worker.join()


def test_a_failed_task_raises_what_is_known_of_its_error(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    hand_worker.fail(app)
    with pytest.raises(TaskFailed, match="ValueError: no such thing") as caught:
        handle.get(timeout=5)
    assert (caught.value.task_id, caught.value.error_type, caught.value.stack) == (handle.id, "ValueError", "Traceback …")


def test_a_cancelled_task_says_so(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    hand_worker.cancel(app)
    with pytest.raises(TaskCancelled, match="not needed"):
        handle.get(timeout=5)


def test_a_task_that_does_not_end_in_time_is_a_timeout(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    with pytest.raises(ResultTimeout, match=handle.id):
        handle.get(timeout=0.01)
    with pytest.raises(TimeoutError):
        asyncio.run(handle.aget(timeout=0.01))


def test_a_running_task_is_not_at_its_end(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    hand_worker.mark_running(app, hand_worker.take(app))
    assert handle.status().state is TaskState.RUNNING
    with pytest.raises(ResultTimeout):
        handle.get(timeout=0)


def test_an_event_loop_goes_on_while_it_enqueues_and_waits(app: Stem) -> None:
    task = app.task(double)

    async def produce() -> list[int]:
        handles = [await task.aenqueue(number) for number in range(20)]
        waiting = [asyncio.create_task(handle.aget(timeout=30)) for handle in handles]
        for _ in handles:
            await asyncio.to_thread(hand_worker.run, app)
        return await asyncio.gather(*waiting)

    assert asyncio.run(produce()) == [2 * number for number in range(20)]


def test_without_results_a_handle_raises_at_once(tmp_path: Path) -> None:
    with Stem(f"sqlite:///{tmp_path}/stem.db", "none", settings=Settings()) as app:
        handle = app.task(double).enqueue(4)
        with pytest.raises(ResultsDisabled):
            handle.get()
        with pytest.raises(ResultsDisabled):
            asyncio.run(handle.aget())


def test_a_handle_revokes_its_task(app: Stem) -> None:
    handle = app.task(double).enqueue(4)
    handle.revoke(terminate=True, reason="typo")
    (revocation,) = app.stores.revocations.list_since(0)
    assert (revocation.task_id, revocation.terminate, revocation.reason) == (handle.id, True, "typo")


def test_a_handle_is_known_by_its_id(app: Stem) -> None:
    assert app.handle("a") == app.handle("a") != app.handle("b")
    assert len({app.handle("a"), app.handle("a")}) == 1
    with pytest.raises(UsageError):
        app.handle("no id")


# ---------------------------------------------------------------- stores


def test_an_executor_does_not_open_a_second_memory_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_is_executor", True)
    app = Stem("memory://", settings=Settings())
    task = app.task(double)
    with pytest.raises(UsageError, match="memory broker"):  # it only imports so far, and has no way to its worker
        task.enqueue(1)
    with pytest.raises(UsageError, match="memory://"):
        app.stores.broker.depths()


def test_what_a_task_enqueues_inherits_headers_and_meta_and_says_where_it_comes_from(app: Stem) -> None:
    task = app.task(name="t")(double)
    meta = {"tenant": "a", "k": 1, "stem.timeLimitMs": 5, "stem.rootTaskId": "root"}
    running = context.TaskContext(RecordingLink(), 1, "id-1", "parent", 2, {"h": "1", "own": "0"}, meta, enqueuer=app)
    running.enqueue(task.options(headers={"own": "1"}), [4], meta={"k": 2})
    envelope = sent(app)
    assert (envelope.headers, envelope.args) == ({"h": "1", "own": "1"}, [4])
    origin = {"stem.parentTaskId": "id-1", "stem.parentAttempt": 2, "stem.rootTaskId": "root"}
    assert envelope.meta == {"tenant": "a", "k": 2, **origin}
    running.enqueue("elsewhere", add_to_parent=False, queue="mail")
    envelope = sent(app, "mail")
    assert (envelope.name, envelope.meta) == ("elsewhere", {"tenant": "a", "k": 1})


def test_a_spawned_task_takes_its_arguments_as_they_are(app: Stem) -> None:
    running = context.TaskContext(RecordingLink(), 1, "id-1", "parent", 0, {}, {}, enqueuer=app)
    running.spawn("elsewhere", 1, queue="a keyword like any other")
    envelope = sent(app)
    assert (envelope.args, envelope.kwargs) == ([1], {"queue": "a keyword like any other"})
    assert envelope.meta["stem.rootTaskId"] == "id-1"


def test_a_context_without_an_application_cannot_enqueue() -> None:
    with pytest.raises(UsageError, match="no application"):
        context.TaskContext(RecordingLink(), 1, "id-1", "parent", 0, {}, {}).spawn("t")


def test_namespaces_do_not_see_each_other(tmp_path: Path) -> None:
    settings = Settings(broker_url=f"sqlite:///{tmp_path}/stem.db")
    with Stem(settings=settings, namespace="a") as a, Stem(settings=replace(settings, namespace="b")) as b:
        a.task(double).enqueue(1)
        assert [depth.pending for depth in a.stores.broker.depths()] == [1]
        assert b.stores.broker.depths() == []
