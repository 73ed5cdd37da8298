"""A worker and what becomes of the tasks it is given, with nothing killed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stem_actors import TaskCancelled, TaskFailed, TaskState
from stem_actors.ports import Message
from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import SOON, Journal, until


def test_results_come_back(fleet: Fleet, journal: Journal) -> None:
    fleet.start()
    handles = [fleet.enqueue("short", journal.path, f"w{n}") for n in range(50)]
    assert [handle.get(SOON) for handle in handles] == [f"w{n}" for n in range(50)]
    assert journal.words() == {f"w{n}": 1 for n in range(50)}
    assert fleet.enqueue("anap", journal.path, "a", 0.01).get(SOON) > 0


def test_a_result_that_nobody_wants_is_not_kept(processes: Fleet) -> None:
    processes.start()
    for handle in (processes.enqueue("silent"), processes.enqueue("echo", 1, ignore_result=True)):
        assert handle.get(SOON) is None
        assert handle.status().payload is None


@pytest.mark.parametrize("what", ["set", "huge"])
def test_a_result_that_cannot_travel_fails_the_task_for_good(processes: Fleet, what: str) -> None:
    processes.start()
    handle = processes.enqueue("give", what)
    with pytest.raises(TaskFailed, match="ResultRejected"):
        handle.get(SOON)
    assert handle.status().attempt == 0
    assert processes.enqueue("echo", "next").get(SOON) == "next"


# ---------------------------------------------------------------- retries


def test_a_failure_is_retried_after_the_delay_of_its_policy(fleet: Fleet, journal: Journal) -> None:
    fleet.start()
    handle = fleet.enqueue("flaky", journal.path, "x", 2)
    assert handle.get(SOON) == "x"
    assert journal.lines() == ["x-0", "x-1", "x-2"]
    assert (handle.status().attempt, handle.status().state) == (2, TaskState.SUCCEEDED)


def test_a_task_between_two_attempts_says_when_the_next_is_due(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("again", journal.path, "x", 60.0)
    until(lambda: handle.status().state is TaskState.RETRIED)
    record = handle.status()
    assert record.meta["retryDelayMs"] == 60_000
    assert (record.retryable, record.attempt) == (True, 0)


def test_a_task_may_ask_for_its_retries(processes: Fleet, journal: Journal) -> None:
    processes.start()
    assert processes.enqueue("again", journal.path, "x", 0.05, max_retries=2).get(SOON) == 2
    assert processes.enqueue("again", journal.path, "y", 0.05, 2, max_retries=1).get(SOON) == 2
    with pytest.raises(TaskFailed, match="RetryExhausted"):
        processes.enqueue("again", journal.path, "z", 0.05, max_retries=1).get(SOON)
    assert journal.words() == {f"{word}-{n}": 1 for word, n in ("x0", "x1", "x2", "y0", "y1", "y2", "z0", "z1")}


def test_without_retries_left_a_task_is_set_aside(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("flaky", journal.path, "x", 9, max_retries=1)
    with pytest.raises(TaskFailed, match="ValueError: attempt 1") as caught:
        handle.get(SOON)
    assert "tasks_app.py" in (caught.value.stack or "")
    dead = processes.wait_dead_letter(handle)
    assert (dead.reason, dead.meta["error"]) == ("max-retries-exhausted", "ValueError: attempt 1")
    assert journal.lines() == ["x-0", "x-1"]


def test_an_error_that_the_policy_excludes_is_not_retried(processes: Fleet, journal: Journal) -> None:
    processes.start()
    with pytest.raises(TaskFailed, match="KeyError"):
        processes.enqueue("picky", journal.path, "x", max_retries=9).get(SOON)
    assert journal.lines() == ["x"]


# ---------------------------------------------------------------- what does not run


def test_an_expired_task_is_cancelled_and_never_runs(processes: Fleet, journal: Journal) -> None:
    handle = processes.enqueue("note", journal.path, "x", expires=0.01)
    in_time = processes.enqueue("note", journal.path, "y", expires=60.0)
    time.sleep(0.05)  # the time itself is what is tested
    processes.start()
    with pytest.raises(TaskCancelled, match="expired"):
        handle.get(SOON)
    in_time.get(SOON)
    assert journal.lines() == ["y"]


def test_a_task_that_nobody_knows_is_put_off_and_then_set_aside(processes: Fleet) -> None:
    processes.set(unregistered_max_deliveries=2)
    processes.start()
    handle = processes.enqueue("nobody")
    until(lambda: [depth.delayed for depth in processes.app.stores.broker.depths(["default"])] == [1])
    dead = processes.wait_dead_letter(handle)
    assert (dead.reason, dead.meta) == ("unregistered-task", {"task": "nobody"})
    assert dead.state is not None
    assert (dead.state.attempt, dead.state.hand_backs) == (0, 2)
    with pytest.raises(TaskFailed, match="Unregistered"):
        handle.get(SOON)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xc1garbage", "malformed"),
        (b"", "malformed"),
        (b"\x92\x02\x00", "unsupported-version"),
        (bytes(300_000), "too-large"),
    ],
)
def test_a_message_that_cannot_be_read_is_set_aside_and_holds_nothing_up(
    processes: Fleet, journal: Journal, body: bytes, reason: str
) -> None:
    processes.app.stores.broker.publish("somebody", 1, [Message("bad", "default", 9, body)])
    processes.start()
    others = [processes.enqueue("short", journal.path, f"w{n}") for n in range(5)]
    assert [handle.get(SOON) for handle in others] == [f"w{n}" for n in range(5)]
    dead = processes.wait_dead_letter(processes.app.handle("bad"))
    assert (dead.reason, dead.body) == (reason, body)
    with pytest.raises(TaskFailed, match="Malformed"):
        processes.app.handle("bad").get(SOON)
    assert journal.words() == {f"w{n}": 1 for n in range(5)}


# ---------------------------------------------------------------- progress, limits


def test_progress_is_stored_while_the_task_runs(fleet: Fleet, journal: Journal) -> None:
    fleet.start()
    handle = fleet.enqueue("progressing", journal.path, "x", 2.0)
    record = until(lambda: record if (record := handle.status()).state is TaskState.RUNNING else None)
    assert record is not None
    assert record.meta["progress"] == {"percent": 0.25, "data": {"rows": 10}}
    assert record.meta["worker"] == "w-1"
    assert handle.get(SOON) == "x"


def test_progress_may_hold_whatever_travels(processes: Fleet) -> None:
    processes.start()
    assert processes.enqueue("odd_progress").get(SOON) == "told"


def test_a_soft_limit_is_raised_in_the_task(fleet: Fleet, journal: Journal) -> None:
    fleet.start()
    caught = fleet.enqueue("soft", journal.path, "x", True, max_retries=0)
    uncaught = fleet.enqueue("soft", journal.path, "y", max_retries=0)
    coroutine = fleet.enqueue("anap", journal.path, "z", 60.0, soft_time_limit=0.3, max_retries=0)
    assert caught.get(SOON) == "cleaned up"
    for handle in (uncaught, coroutine):
        with pytest.raises(TaskFailed, match="SoftTimeLimitExceeded"):
            handle.get(SOON)


def test_a_hard_limit_ends_the_task_whatever_it_does_about_it(fleet: Fleet, journal: Journal) -> None:
    worker = fleet.start(concurrency=1)
    before = set(worker.reports.executors)
    neighbour = fleet.enqueue("anap", journal.path, "a", 1.0)
    journal.wait_for("a-starts")
    failing = [
        fleet.enqueue("hard", journal.path, "x", max_retries=0),
        fleet.enqueue("anap", journal.path, "y", 60.0, hard_time_limit=0.3, max_retries=0),
    ]
    for handle in failing:
        with pytest.raises(TaskFailed, match="HardTimeLimitExceeded"):
            handle.get(SOON)
    assert fleet.enqueue("echo", "next").get(SOON) == "next"
    neighbour.get(SOON)
    until(lambda: set(worker.reports.executors) != before)
    assert journal.words() == {"x": 1, "a-starts": 1, "a": 1, "y-starts": 1}
    assert [dead.state.deaths for dead in fleet.dead_letters().values() if dead.state is not None] == [(), ()]


def test_a_hard_limit_is_a_failure_that_may_be_retried(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("again", journal.path, "x", 0.0)  # attempts 0 and 1 ask, attempt 2 returns
    assert handle.get(SOON) == 2
    handle = processes.enqueue("hard", journal.path, "y", max_retries=1)
    until(lambda: handle.status().state is TaskState.RETRIED)
    assert handle.status().error is not None


# ---------------------------------------------------------------- revoked


def test_a_waiting_task_that_is_revoked_never_runs(fleet: Fleet, journal: Journal) -> None:
    fleet.start(concurrency=1)
    head = fleet.enqueue("nap", journal.path, "head", 0.7)
    journal.wait_for("head-starts")
    waiting, later = fleet.enqueue("note", journal.path, "x"), fleet.enqueue("note", journal.path, "y", countdown=0.5)
    for handle in (waiting, later):
        handle.revoke(reason="not needed")
    for handle in (waiting, later):
        with pytest.raises(TaskCancelled, match="not needed"):
            handle.get(SOON)
    head.get(SOON)
    assert journal.lines() == ["head-starts", "head"]
    assert waiting.status().meta["revoked"] is True


def test_a_task_revoked_before_any_worker_runs_never_runs(processes: Fleet, journal: Journal) -> None:
    handle = processes.enqueue("note", journal.path, "x")
    handle.revoke()
    processes.start()
    with pytest.raises(TaskCancelled):
        handle.get(SOON)
    assert journal.lines() == []


def test_a_running_task_is_let_be_unless_it_is_to_be_terminated(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("nap", journal.path, "x", 0.5)
    journal.wait_for("x-starts")
    handle.revoke()
    handle.get(SOON)
    assert journal.words()["x"] == 1


def test_a_revoked_task_is_not_retried(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("again", journal.path, "x", 0.5)
    journal.wait_for("x-0")
    handle.revoke()
    with pytest.raises(TaskCancelled):
        handle.get(SOON)
    assert journal.lines() == ["x-0"]


@pytest.mark.parametrize("task", ["nap", "spin", "chatter", "anap"])
def test_a_running_task_is_terminated_at_once(fleet: Fleet, journal: Journal, task: str) -> None:
    fleet.start()
    neighbour = fleet.enqueue("anap" if task == "anap" else "nap", journal.path, "neighbour", 1.0)
    handle = fleet.enqueue(task, journal.path, "x", 60.0)
    journal.wait_for("x-starts")
    handle.revoke(terminate=True, reason="enough")
    with pytest.raises(TaskCancelled, match="enough"):
        handle.get(SOON)
    neighbour.get(SOON)
    assert journal.words() == {"x-starts": 1, "neighbour-starts": 1, "neighbour": 1}


def test_a_task_that_hears_no_interrupt_is_killed(processes: Fleet, journal: Journal) -> None:
    processes.start()
    handle = processes.enqueue("deaf", journal.path, "x")
    journal.wait_for("x-starts")
    handle.revoke(terminate=True)
    with pytest.raises(TaskCancelled):
        handle.get(SOON)
    assert processes.enqueue("echo", 1).get(SOON) == 1
    assert journal.words() == {"x-starts": 1}


# ---------------------------------------------------------------- slow heads


def test_what_waits_behind_an_unexpectedly_slow_task_goes_to_an_idle_executor(fleet: Fleet, journal: Journal) -> None:
    fleet.start(concurrency=2)
    for _ in range(3):  # such tasks are known to be short
        for handle in [fleet.enqueue("nap", journal.path, "warm", 0.0) for _ in range(30)]:
            handle.get(SOON)
    task = [
        fleet.enqueue("nap", journal.path, word, seconds)
        for word, seconds in (("slow", 3.0), *((f"w{n}", 0.0) for n in range(60)))
    ]
    for handle in task[1:]:
        handle.get(SOON)
    assert journal.words()["slow"] == 0, "60 short tasks waited for a slow one of 3 s"
    task[0].get(SOON)
    assert {word: count for word, count in journal.words().items() if word.startswith(("w", "slow")) and count != 1} == {
        "warm": 90,
        "warm-starts": 90,
    }


def test_a_long_task_runs_once_whatever_its_lease(fleet: Fleet, journal: Journal) -> None:
    fleet.set(visibility_timeout=1.0)
    fleet.start()
    handles = [fleet.enqueue("hold", journal.path, "x", "sum", 3.0), fleet.enqueue("nap", journal.path, "y", 3.0)]
    for handle in handles:
        handle.get(60.0)
    assert journal.words() == {"x-starts": 1, "x": 1, "y-starts": 1, "y": 1}
    assert all(handle.status().delivery_count == 1 for handle in handles)


# ---------------------------------------------------------------- embedded

_SCRIPT = """
from stem_actors import Stem

app = Stem({url!r})

@app.task
def double(number: int) -> int:
    return 2 * number

@app.task
async def adouble(number: int) -> int:
    return 2 * number

if __name__ == "__main__":
    with app.worker(concurrency=1):
        handles = [double.enqueue(n) for n in range(10)] + [adouble.enqueue(5)]
        print([handle.get(timeout=30) for handle in handles])
"""


@pytest.mark.parametrize("url", ["memory://", "sqlite:///stem.db"])
def test_a_script_runs_its_own_tasks_by_a_worker_inside(tmp_path: Path, url: str) -> None:
    script = tmp_path / "shop.py"
    script.write_text(_SCRIPT.format(url=url))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[2 * n for n in range(10)] + [10]}\n"
