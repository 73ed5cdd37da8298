"""Fault points: whoever is told to die there dies, and nobody else; what remains goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Handle
from stem_chaos.history import Operation, Phase, Verb
from stem_chaos.points import POINTS, WORKER_POINTS, Points, arm, disarm, is_armed
from tests.fixtures.node import is_alive
from tests.fixtures.probed import Probed, probed
from tests.fixtures.waiting import SOON, until

# ---------------------------------------------------------------- the points alone

REACHES = """
import sys
from pathlib import Path
from stem_chaos.points import Points
points = Points(Path(sys.argv[1]), lambda name: print("dies at", name, flush=True))
sys.stdin.read()
points.reach("fetch.before")
print("lives")
"""


def reaching(directory: Path, count: int) -> list[tuple[int, str]]:
    """Let so many processes come to a point at about the same time: their exit codes, and what they said."""
    command = [sys.executable, "-c", REACHES, str(directory)]
    environ = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True) for _ in range(count)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    said = []
    for process in started:
        assert process.stdout is not None
        with process.stdout:
            said.append(process.stdout.read().strip())
    return [(process.wait(30), words) for process, words in zip(started, said, strict=True)]


DEATH = (-signal.SIGKILL, "dies at fetch.before")
LIFE = (0, "lives")


def test_nobody_dies_where_nothing_is_armed(tmp_path: Path) -> None:
    assert reaching(tmp_path, 1) == [LIFE]
    arm(tmp_path, "fetch.after")
    assert reaching(tmp_path, 1) == [LIFE]


@pytest.mark.parametrize("times", [1, 3])
def test_as_many_die_as_were_told_to(tmp_path: Path, times: int) -> None:
    arm(tmp_path, "fetch.before", times)
    assert sorted(reaching(tmp_path, 6)) == [DEATH] * times + [LIFE] * (6 - times)
    assert list((tmp_path / "points").iterdir()) == []


def test_a_point_made_by_hand_is_for_one(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "fetch.before").touch()
    assert sorted(reaching(tmp_path, 2)) == [DEATH, LIFE]


def test_a_point_can_be_disarmed(tmp_path: Path) -> None:
    assert not disarm(tmp_path, "fetch.before")
    arm(tmp_path, "fetch.before", 5)
    assert is_armed(tmp_path, "fetch.before")
    assert disarm(tmp_path, "fetch.before")
    assert not is_armed(tmp_path, "fetch.before")
    assert reaching(tmp_path, 1) == [LIFE]


def test_last_words_that_fail_save_nobody(tmp_path: Path) -> None:
    arm(tmp_path, "fetch.before")
    source = REACHES.replace('print("dies at", name, flush=True)', "1 / 0")
    environ = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], stdin=subprocess.DEVNULL, env=environ)
    assert done.returncode == -signal.SIGKILL


def test_of_many_threads_each_time_is_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[str] = []
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    points = Points(tmp_path, deaths.append)
    arm(tmp_path, "sweep.after", 40)

    def reach() -> None:
        for _ in range(400):
            points.reach("sweep.after")

    threads = [threading.Thread(target=reach) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert deaths == ["sweep.after"] * 40


# ---------------------------------------------------------------- in nodes

LONG = 60.0
"""Seconds within which a worker runs again that has died several times in a row: it starts some seconds later each time."""


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.soak) for name in ("redis", "postgres"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Probed]:
    with probed(tmp_path, request.param) as made:
        yield made


def deaths(place: Probed) -> dict[str, list[Operation]]:
    """Who died at which point: the beginning of the fault, and its end."""
    found: dict[str, list[Operation]] = {}
    for each in place.history().of(Verb.FAULT):
        found.setdefault(each.detail["target"], []).append(each)
    return found


def die_at(place: Probed, point: str, seconds: Sequence[float], first: int) -> list[Handle[Any]]:
    """Have a process die at a point, with tasks of so many seconds to bring one there."""
    arm(place.run, point)
    handles = [place.enqueue("jobs.note", first + number, each) for number, each in enumerate(seconds)]
    if point.startswith("retry"):
        place.enqueue("jobs.fail_once")
    # Until it has died, that is: meanwhile another of its threads may take up a second point, and come to nothing there.
    until(lambda: not is_armed(place.run, point) and point in deaths(place), LONG, what=point)
    return handles


@pytest.mark.timeout(300)
def test_each_point_ends_one_process_of_its_kind_and_all_work_is_done(place: Probed) -> None:
    node = place.start("--workers", "2", "--concurrency", "1", "--visibility-timeout", "1s")
    handles: list[Handle[Any]] = []
    for point in POINTS:
        handles += die_at(place, point, [1.0] if point.startswith("renew") else [0.01] * 8, first=len(handles))
    assert [handle.get(LONG) for handle in handles] == list(range(len(handles)))

    told = deaths(place)
    assert set(told) == set(POINTS)
    of_process: dict[int, list[Operation]] = {}
    for each in place.history().operations:
        of_process.setdefault(each.pid, []).append(each)
    for point, (begins, *ends) in told.items():
        assert [each.phase for each in (begins, *ends)] == [Phase.INVOKE, Phase.OK], point
        assert begins.call == ends[0].call
        assert begins.detail == ends[0].detail
        assert (begins.detail["fault"], begins.detail["pids"][0]) == ("point", begins.pid)
        assert [pid for pid in begins.detail["pids"] if is_alive(pid)] == []
        own = of_process[begins.pid]
        assert own[-1].at < begins.at + 5, point  # its other threads go on until the signal has come
        if point in WORKER_POINTS:
            assert begins.detail["incarnations"] == [begins.process]
            assert {each.incarnation for each in own} <= {begins.process, None}
        else:
            assert begins.process == f"executor-{begins.pid}"
            assert begins.detail["incarnations"] == []
            before = own[-3].verb if len(own) > 2 else None
            assert before in {"start.before": (None, Verb.END), "start.after": (Verb.START,), "result.before": (Verb.END,)}[point]
    assert len({begins.pid for begins, _ in told.values()}) == len(POINTS)
    restarts = "stem_actor_restarts_total"
    until(lambda: node.metric(restarts, actor="worker") >= len(WORKER_POINTS))
    assert node.metric(restarts, actor="worker") == len(WORKER_POINTS)


def test_an_executor_that_dies_before_its_start_is_told_leaves_no_start(place: Probed) -> None:
    place.start("--concurrency", "1")
    arm(place.run, "start.before", 2)
    handle = place.enqueue("jobs.note", 1)
    assert handle.get(SOON) == 1
    assert not is_armed(place.run, "start.before")
    assert [each.verb for each in place.of(handle, Verb.START, Verb.END)] == [Verb.START, Verb.END]
    assert [len(each.detail["deaths"]) for each in place.of(handle, Verb.DELIVER)] == [0, 1, 2]
    assert len(deaths(place)["start.before"]) == 4


@pytest.mark.parametrize(
    ("point", "deliveries", "runs"),
    [("hand-over.before", 2, 1), ("settle.before", 2, 2), ("settle.after", 1, 1)],
)
def test_a_worker_that_dies_at_a_point_has_done_what_comes_before_it_and_no_more(
    place: Probed, point: str, deliveries: int, runs: int
) -> None:
    place.start("--concurrency", "1", "--visibility-timeout", "1s")
    arm(place.run, point)
    handle = place.enqueue("jobs.note", 1)
    assert handle.get(SOON) == 1
    (death, _) = until(lambda: deaths(place).get(point)) or []
    assert [each.delivery_count for each in place.of(handle, Verb.DELIVER)] == list(range(1, deliveries + 1))
    assert len(place.of(handle, Verb.START)) == runs
    settled = until(lambda: [each for each in place.of(handle, Verb.SETTLE) if each.phase is Phase.OK])
    assert len(settled) == 1
    assert (settled[0].incarnation == death.process) == (point == "settle.after")
