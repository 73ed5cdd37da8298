"""The recorded application, in executors of every kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import TaskFailed
from stem_chaos.history import Verb
from tests.fixtures.probed import Probed, probed
from tests.fixtures.waiting import SOON, Journal
from tests.fixtures.wrapped_app import Money, register_money


@pytest.fixture
def wrapped(tmp_path: Path) -> Iterator[Probed]:
    with probed(tmp_path, "sqlite", "tests.fixtures.wrapped_app:app") as place:
        yield place


@pytest.fixture
def various(tmp_path: Path) -> Iterator[Probed]:
    with probed(tmp_path, "sqlite", "tests.fixtures.tasks_app") as place:
        yield place


PAIR = [Verb.START, Verb.END]


def pair(place: Probed, handle: object) -> list[Verb]:
    return [each.verb for each in place.of(handle, Verb.START, Verb.END)]  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [(), ("--pool", "spawn"), ("--threads", "2")])
def test_the_middleware_and_the_types_of_the_application_are_kept(wrapped: Probed, flags: tuple[str, ...]) -> None:
    register_money(wrapped.app)
    wrapped.start(*flags)
    say, asay, double = wrapped.enqueue("say", "hello"), wrapped.enqueue("asay", "hello"), wrapped.enqueue("double", Money(2))
    assert say.get(SOON) == ["outer", ["inner", "hello by inner"]]
    assert asay.get(SOON) == ["outside", "hello"]
    assert double.get(SOON) == ["outside", Money(4)]
    for handle in (say, asay, double):
        assert pair(wrapped, handle) == PAIR


def test_what_the_application_s_own_middleware_raises_belongs_to_the_run(wrapped: Probed) -> None:
    wrapped.start()
    for task in ("say", "asay"):
        handle = wrapped.enqueue(task, "skip", max_retries=0)
        with pytest.raises(TaskFailed, match="middleware did not run the task"):
            handle.get(SOON)
        assert pair(wrapped, handle) == PAIR


def test_coroutines_of_one_executor_are_recorded_each_by_itself(various: Probed, tmp_path: Path) -> None:
    various.start("--concurrency", "1")
    journal = Journal(tmp_path)
    naps = [various.enqueue("anap", journal.path, str(number), 0.5) for number in range(10)]
    assert len({handle.get(SOON) for handle in naps}) == 1
    failed = various.enqueue("afail", max_retries=0)
    with pytest.raises(TaskFailed):
        failed.get(SOON)
    told = [each for each in various.history().of(Verb.START, Verb.END) if each.task_id in {handle.id for handle in naps}]
    assert [each.verb for each in told] == [Verb.START] * 10 + [Verb.END] * 10
    assert [each.detail for each in various.of(failed, Verb.END)] == [{"outcome": "raised", "error": "ValueError"}]


def test_threads_of_one_executor_are_recorded_each_by_itself(various: Probed, tmp_path: Path) -> None:
    various.start("--concurrency", "1", "--threads", "4")
    journal = Journal(tmp_path)
    naps = [various.enqueue("nap", journal.path, str(number), 0.5) for number in range(4)]
    pids = {handle.get(SOON) for handle in naps}
    told = list(various.history().of(Verb.START, Verb.END))
    assert [each.verb for each in told] == [Verb.START] * 4 + [Verb.END] * 4
    assert {each.pid for each in told} == pids


@pytest.mark.parametrize("task", ["forks", "aforks"])
def test_a_forked_copy_of_an_executor_writes_nothing(various: Probed, tmp_path: Path, task: str) -> None:
    various.start()
    journal = Journal(tmp_path)
    handle = various.enqueue(task, journal.path, "w")  # which waits for its copy's end
    assert handle.get(SOON) == "w"
    assert pair(various, handle) == PAIR


@pytest.mark.parametrize("flags", [(), ("--threads", "4")])
def test_runs_that_end_about_when_their_soft_limit_comes_are_whole(
    various: Probed, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    various.start(*flags)
    journal = Journal(tmp_path)
    handles = [
        various.enqueue("spin", journal.path, "w", 0.03 + number * 0.001, soft_time_limit=0.03, max_retries=0)
        for number in range(60)
    ]
    various.app.stores.results.wait([handle.id for handle in handles], SOON)  # type: ignore[union-attr]  # it has results
    starts = Counter(each.task_id for each in various.history().of(Verb.START))
    ends = Counter(each.task_id for each in various.history().of(Verb.END))
    assert starts == ends
    assert set(starts.values()) == {1}
    assert len(starts) > 40  # with threads a limit may come while a run still waits for the interpreter


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STEM_CHAOS_APP", "", "STEM_CHAOS_APP names no application"),
        ("STEM_CHAOS_APP", "jobs:add", "that is no Stem application but a Task"),
        ("STEM_CHAOS_APP", "jobs:nothing", "has no attribute 'nothing'"),
        ("STEM_CHAOS_APP", "nowhere", "No module named 'nowhere'"),
    ],
)
def test_an_application_that_cannot_be_recorded_ends_the_node_with_the_reason(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    with probed(tmp_path, "sqlite") as place:
        place.environ[variable] = value
        node = place.start(is_ready=False)
        assert node.wait(30) == 64
        assert said in node.log
