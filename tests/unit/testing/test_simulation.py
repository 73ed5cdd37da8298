"""A user's tasks in virtual time, when nothing goes wrong but what the test itself does."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stem_actors import (
    BrokerUnavailable,
    Handle,
    ResultTimeout,
    RetryPolicy,
    Settings,
    SoftTimeLimitExceeded,
    Stem,
    TaskFailed,
    TaskState,
    UsageError,
    current_task,
)
from stem_actors.testing import ExecutorDeath, NotQuiet, Simulation

HOUR = 3600.0
Simulate = Callable[..., Simulation]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="stem")


@pytest.fixture
def app() -> Stem:
    return Stem(settings=Settings(broker_url="redis://nowhere.invalid/0"))


@pytest.fixture
def simulate(app: Stem) -> Iterator[Simulate]:
    made: list[Simulation] = []

    def simulate(**options: Any) -> Simulation:
        made.append(Simulation(app, **options))
        return made[-1]

    yield simulate
    for each in made:
        each.close()


def test_retries_with_hours_between_them_take_no_time(app: Stem, simulate: Simulate) -> None:
    @app.task(max_retries=3, retry_policy=RetryPolicy(backoff=True, default_delay=HOUR, jitter=False))
    def welcome(address: str) -> str:
        if current_task().attempt < 2:
            raise ConnectionError("mail is down")
        return f"to {address}"

    began = time.monotonic()
    run = simulate()
    welcomed = run.enqueue(welcome, "a@b.c")
    run.until_quiet()
    assert welcomed.state is TaskState.SUCCEEDED
    assert welcomed.result == "to a@b.c"
    assert [attempt.outcome for attempt in welcomed.attempts] == ["raised", "raised", "returned"]
    assert [attempt.number for attempt in welcomed.attempts] == [0, 1, 2]
    assert welcomed.attempts[0].error == "ConnectionError: mail is down"
    assert welcomed.waits == pytest.approx([HOUR, 2 * HOUR], abs=2.0)
    assert run.now == pytest.approx(3 * HOUR, abs=5.0)
    assert time.monotonic() - began < 30.0  # a hundredth of a second, on a machine that does nothing else


def test_a_task_that_runs_out_of_retries_is_a_dead_letter(app: Stem, simulate: Simulate) -> None:
    @app.task(max_retries=1, retry_policy=RetryPolicy(default_delay=1.0))
    def fails() -> None:
        raise ValueError("no")

    run = simulate()
    failed = run.enqueue(fails)
    run.until_quiet()
    assert failed.state is TaskState.FAILED
    assert failed.dead_letter == "max-retries-exhausted"
    assert failed.error == "ValueError: no"
    assert len(failed.attempts) == 2
    with pytest.raises(TaskFailed, match="ValueError: no"):
        _ = failed.result


def test_sleeping_tasks_meet_their_time_limits_in_virtual_time(app: Stem, simulate: Simulate) -> None:
    @app.task(soft_time_limit=60)
    def polite() -> str:
        try:
            time.sleep(HOUR)
        except SoftTimeLimitExceeded:
            return "tidied up"
        return "finished"

    @app.task(hard_time_limit=60, max_retries=0)
    def stubborn() -> None:
        while True:
            try:
                time.sleep(HOUR)
            except Exception:
                pass

    run = simulate()
    soft, hard = run.enqueue(polite), run.enqueue(stubborn)
    run.until_quiet()
    assert soft.result == "tidied up"
    assert hard.error is not None
    assert hard.error.startswith("HardTimeLimitExceeded")
    (attempt,) = hard.attempts
    assert attempt.outcome == "killed"
    assert attempt.ended_at is not None
    assert attempt.ended_at - attempt.started_at == pytest.approx(60, abs=0.2)


def test_coroutines_wait_side_by_side_on_the_same_clock(app: Stem, simulate: Simulate) -> None:
    @app.task(soft_time_limit=100)
    async def waits(seconds: float) -> str:
        try:
            async with asyncio.timeout(50):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "timed out"
        return "slept"

    @app.task(soft_time_limit=100)
    async def limited() -> str:
        try:
            await asyncio.sleep(HOUR)
        except SoftTimeLimitExceeded:
            return "limited"
        return "slept"

    run = simulate(concurrency=1)
    runs = [run.enqueue(waits, seconds) for seconds in (1, 2, 3, 1000)] + [run.enqueue(limited)]
    run.until_quiet()
    assert [each.result for each in runs] == ["slept", "slept", "slept", "timed out", "limited"]
    assert run.now < 120


def test_a_task_enqueues_another_and_waits_for_it(app: Stem, simulate: Simulate) -> None:
    @app.task
    def child(number: int) -> int:
        time.sleep(10)
        return number + 1

    @app.task
    def parent() -> int:
        return child.enqueue(1).get(timeout=HOUR) + 1

    @app.task
    async def aparent() -> int:
        handle: Handle[int] = await child.aenqueue(2)
        return handle.id != ""

    run = simulate()
    waited, asynchronous = run.enqueue(parent), run.enqueue(aparent)
    run.until_quiet()
    assert waited.result == 3
    assert asynchronous.result is True


def test_what_the_program_waits_for_happens_meanwhile(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> str:
        time.sleep(100)
        return "done"

    run = simulate()
    handle = slow.options(countdown=HOUR).enqueue()
    with pytest.raises(ResultTimeout):
        handle.get(timeout=10)
    assert run.now == pytest.approx(10)
    assert handle.get(timeout=2 * HOUR) == "done"
    assert run.follow(handle).attempts[0].started_at == pytest.approx(HOUR, abs=1.0)


def test_a_revocation_reaches_what_waits_and_what_runs(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> None:
        time.sleep(HOUR)

    run = simulate(concurrency=1)
    running, waiting = run.enqueue(slow), run.enqueue(slow)
    run.until(lambda: running.attempts)
    running.revoke(terminate=True)
    waiting.revoke()
    run.until_quiet()
    assert (running.state, waiting.state) == (TaskState.CANCELLED, TaskState.CANCELLED)
    assert [attempt.outcome for attempt in running.attempts] == ["interrupted"]
    assert waiting.attempts == []
    assert run.now < 60


def test_a_task_that_kills_its_executor_is_poison(app: Stem, simulate: Simulate) -> None:
    @app.task
    def crashes() -> None:
        os._exit(3)

    @app.task
    async def crashes_on_the_loop() -> None:
        raise ExecutorDeath("signal 11 (SIGSEGV)")

    run = simulate(settings={"max_deliveries": 3})
    crashed, fallen = run.enqueue(crashes), run.enqueue(crashes_on_the_loop)
    run.until_quiet()
    assert (crashed.dead_letter, fallen.dead_letter) == ("poison", "poison")
    assert [attempt.outcome for attempt in crashed.attempts] == ["killed"] * 3
    assert crashed.attempts[0].error == "exit code 3"
    assert fallen.error is not None
    assert "SIGSEGV" in fallen.error


def test_a_killed_executor_and_a_killed_worker_cost_one_redelivery(app: Stem, simulate: Simulate) -> None:
    finished: list[str] = []

    @app.task
    def slow(name: str) -> None:
        time.sleep(30)
        finished.append(name)

    run = simulate(workers=2, concurrency=1, settings={"visibility_timeout": 10.0})
    one, other = run.enqueue(slow, "one"), run.enqueue(slow, "other")
    run.until(lambda: len(one.attempts) == len(other.attempts) == 1)
    run.kill_executor(1)
    run.kill_worker(2, restart=False)
    run.until_quiet()
    assert sorted(finished) == ["one", "other"]
    assert [[attempt.outcome for attempt in each.attempts] for each in (one, other)] == [["killed", "returned"]] * 2
    with pytest.raises(UsageError, match="worker 2 does not live"):
        run.kill_worker(2)


def test_a_stopped_worker_comes_back_too_late_and_changes_nothing(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> str:
        time.sleep(5)
        return "done"

    run = simulate(workers=2, concurrency=1, settings={"visibility_timeout": 6.0})
    task = run.enqueue(slow)
    run.until(lambda: task.attempts)
    holder = next(entry.who.name for entry in run.journal.of("deliver"))
    run.stop_worker(25.0, int(holder[len("worker-")]))
    run.until(lambda: len(task.attempts) == 2)
    run.until_quiet()
    run.advance(30.0)
    assert task.result == "done"
    refused = [entry for entry in run.journal.of("settle", "renew") if entry.phase == "fail"]
    assert {entry.who.name for entry in refused} == {holder}


def test_a_worker_that_leaves_hands_back_what_it_has_not_started(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> None:
        time.sleep(5)

    run = simulate(workers=2, concurrency=1)
    tasks = [run.enqueue(slow) for _ in range(6)]
    run.until(lambda: any(task.attempts for task in tasks))
    run.shut_down(1)
    run.until_quiet()
    assert all(len(task.attempts) == 1 for task in tasks)


def test_every_queue_that_a_task_names_has_a_worker(app: Stem, simulate: Simulate) -> None:
    @app.task(queue="mail")
    def mail() -> str:
        return current_task().name

    run = simulate()
    mailed = run.enqueue(mail)
    run.until_quiet()
    assert mailed.state is TaskState.SUCCEEDED


def test_a_rate_limit_holds_in_virtual_time(app: Stem, simulate: Simulate) -> None:
    @app.task(rate_limit="2/h")
    def rare(number: int) -> int:
        return number

    run = simulate(workers=2)
    tasks = [run.enqueue(rare, number) for number in range(6)]
    run.until_quiet()
    assert [task.result for task in tasks] == list(range(6))
    began = sorted(attempt.started_at for task in tasks for attempt in task.attempts)
    assert len(began) == 6
    assert began[-1] - began[0] == pytest.approx(2 * HOUR, rel=0.01)


def test_what_never_ends_is_named(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> None:
        time.sleep(1e9)

    run = simulate()
    task = run.enqueue(slow)
    with pytest.raises(NotQuiet, match=rf"1 task\(s\) .*slow {task.id} is running after 1 attempts"):
        run.until_quiet(limit=60)
    with pytest.raises(NotQuiet, match="does not hold"):
        run.until(lambda: False, limit=1)


def test_a_queue_that_nobody_serves_is_found_at_once(app: Stem, simulate: Simulate) -> None:
    @app.task
    def plain() -> None:
        pass

    run = simulate()
    run.enqueue(plain.options(queue="elsewhere", countdown=HOUR))
    with pytest.raises(NotQuiet, match=r"plain .* is queued after 0 attempts"):
        run.until_quiet()
    assert run.now < 2 * HOUR


def test_the_application_is_given_back(app: Stem) -> None:
    @app.task
    def touches() -> float:
        return random.random()

    sleep, leave, state = time.sleep, os._exit, random.getstate()
    drawn = set()
    for _ in range(2):
        with Simulation(app) as run:
            task = run.enqueue(touches)
            run.until_quiet()
            drawn.add(task.result)
    assert len(drawn) == 1
    assert (time.sleep, os._exit, random.getstate()) == (sleep, leave, state)
    with pytest.raises(BrokerUnavailable):
        app.stores.broker.depths()


def test_a_closed_simulation_ends_what_still_waits(app: Stem) -> None:
    seen: list[str] = []

    @app.task
    def slow() -> None:
        try:
            time.sleep(HOUR)
        finally:
            seen.append("unwound")

    @app.task
    async def aslow() -> None:
        await asyncio.sleep(HOUR)

    with Simulation(app) as run:
        task, other = run.enqueue(slow), run.enqueue(aslow)
        run.until(lambda: task.attempts and other.attempts)
        run.kill_executor()
        assert seen == []  # SIGKILL runs nothing
    assert seen == ["unwound"]


def test_a_simulation_is_not_moved_on_by_its_own_tasks(app: Stem, simulate: Simulate) -> None:
    @app.task(max_retries=0)
    def presumes() -> None:
        run.advance(1.0)

    run = simulate()
    task = run.enqueue(presumes)
    run.until_quiet()
    assert task.error is not None
    assert "is for the test" in task.error


def test_the_same_seed_is_the_same_run(app: Stem) -> None:
    @app.task(max_retries=5)
    def flaky() -> float:
        time.sleep(random.random())
        if random.random() < 0.7:
            raise ValueError("chance")
        return random.random()

    def story(seed: int) -> str:
        with Simulation(app, seed=seed, workers=2) as run:
            for _ in range(5):
                run.enqueue(flaky)
            run.until_quiet()
            return run.journal.text()

    assert story(3) == story(3)
    assert story(3) != story(4)


def test_a_worker_that_stood_still_for_a_minute_goes_on_with_what_it_ran(app: Stem, simulate: Simulate) -> None:
    @app.task
    def slow() -> str:
        time.sleep(100.0)
        return "done"

    run = simulate()
    running = run.enqueue(slow)
    run.advance(5.0)
    run.stop_worker(60.0)
    run.until_quiet()
    assert running.result == "done"
    assert [attempt.outcome for attempt in running.attempts] == ["returned"]
    assert not list(run.journal.of("exit"))
