"""Everything is killed at random while tasks run: nothing is lost, nothing runs twice without a kill that explains it."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from stem_actors.model.lifecycle import TaskState
from stem_chaos.cluster import Cluster, Layout
from tests.fixtures.killing import KINDS, Execution, Killing, Observation, judge, kill_something, read_journal, summary

EVERY = 1.0


def _run_under_fire(directory: Path, tasks: int, kills: int, seed: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    journal = directory / "journal"
    journal.touch()
    layout = Layout("tests.fixtures.kill_tasks:app", is_recorded=False, environment={"STEM_TEST_JOURNAL": str(journal)})
    chance = random.Random(seed)
    killings: list[Killing] = []
    with Cluster(directory, "sqlite", layout) as cluster:
        cluster.start()
        app = cluster.app
        handles = [app.enqueue_by_name("work", [index, chance.uniform(0.005, 0.05)], max_retries=0) for index in range(tasks)]
        final: dict[int, str] = {}
        states: dict[int, TaskState] = {}
        overwritten: set[int] = set()
        deadline = time.monotonic() + 60 + tasks * 0.03
        next_kill = time.monotonic() + 2 * EVERY
        while time.monotonic() < deadline and (len(final) < tasks or len(killings) < kills):
            cluster.keep_alive()
            if len(killings) < kills and time.monotonic() >= next_kill:
                killing = kill_something(cluster, KINDS[len(killings) % len(KINDS)], chance)
                if killing is not None:
                    killings.append(killing)
                    next_kill = time.monotonic() + EVERY * chance.uniform(0.5, 1.0)
            app.stores.results.wait([handle.id for handle in handles[:1]], 0.1)  # type: ignore[union-attr]  # results are on
            _observe(app, handles, final, states, overwritten)
        _observe(app, handles, final, states, overwritten)
        assert cluster.stop() == [0]
        _observe(app, handles, final, states, overwritten, everything=True)
    executions = read_journal(journal)
    with capsys.disabled():
        print(f"\nseed {seed}: {summary(executions, killings)}")
    problems = judge(tasks, executions, killings, Observation(states, final, sorted(overwritten)))
    if problems:
        problems.append(f"what was killed: {killings}")
    if len(killings) < kills:
        problems.append(f"only {len(killings)} of {kills} kills were done")
    return problems


def _observe(app, handles, final, states, overwritten, everything: bool = False) -> None:  # type: ignore[no-untyped-def]
    for index, handle in enumerate(handles):
        if index in final and not everything:
            continue
        record = handle.status()
        states[index] = record.state
        if record.state.is_final:
            result = repr(record.payload) if record.payload is None else handle.get(timeout=5)
            if final.setdefault(index, result) != result:
                overwritten.add(index)


def test_nothing_is_lost_and_nothing_runs_twice_unexplained_while_all_kinds_of_things_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_under_fire(tmp_path, tasks=400, kills=7, seed=1, capsys=capsys) == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_two_thousand_tasks_survive_twenty_kills(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run_under_fire(tmp_path, tasks=2000, kills=21, seed=100 + seed, capsys=capsys) == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_five_thousand_tasks_survive_a_kill_each_second(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run_under_fire(tmp_path, tasks=5000, kills=28, seed=200 + seed, capsys=capsys) == []


# ---------------------------------------------------------------- the judge itself


def _seen(**results: str) -> Observation:
    return Observation({0: TaskState.SUCCEEDED}, {0: results["result"]}, [])


ONCE = Execution(0, "a", 11, 1.0, 1.1)


def test_the_judge_accepts_one_run_with_its_result() -> None:
    assert judge(1, [ONCE], [], _seen(result="a")) == []


def test_the_judge_finds_a_lost_task() -> None:
    assert "not succeeded" in judge(1, [], [], Observation({0: TaskState.QUEUED}, {}, []))[0]


def test_the_judge_finds_an_unexplained_second_run() -> None:
    again = Execution(0, "b", 12, 2.0, 2.1)
    other = Killing("executor", 1.5, 1.5, frozenset({99}))
    assert "without a kill" in judge(1, [ONCE, again], [other], _seen(result="b"))[0]


def test_the_judge_accepts_a_second_run_after_its_executor_was_killed() -> None:
    cut = Execution(0, "a", 11, 1.0, None)
    again = Execution(0, "b", 12, 2.0, 2.1)
    assert judge(1, [cut, again], [Killing("executor", 1.5, 1.5, frozenset({11}))], _seen(result="b")) == []


def test_the_judge_finds_a_result_of_a_run_that_never_ended() -> None:
    assert "no run that ended" in judge(1, [Execution(0, "a", 11, 1.0, None)], [], _seen(result="a"))[0]


def test_the_judge_finds_an_overwritten_result() -> None:
    seen = Observation({0: TaskState.SUCCEEDED}, {0: "a"}, [0])
    assert judge(1, [ONCE], [], seen) == ["task 0: its final result was overwritten"]
