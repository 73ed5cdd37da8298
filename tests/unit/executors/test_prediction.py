from __future__ import annotations

import pytest

from stem_actors.executors import prediction
from stem_actors.executors.prediction import RunTimes


def test_nothing_is_expected_of_the_unknown() -> None:
    assert RunTimes().expected("a") is None
    assert RunTimes().overall is None


def test_longer_runs_are_believed_sooner_than_shorter_ones() -> None:
    times = RunTimes()
    times.learn("a", 1.0)
    assert times.expected("a") == 1.0
    times.learn("a", 2.0)
    assert times.expected("a") == 1.5
    times.learn("a", 0.5)
    assert times.expected("a") == pytest.approx(1.45)
    assert times.overall == pytest.approx(1.45)


def test_each_task_has_its_own_time() -> None:
    times = RunTimes()
    times.learn("slow", 10.0)
    times.learn("fast", 0.001)
    assert times.expected("fast") == 0.001
    assert times.expected("slow") == 10.0


def test_a_run_that_goes_on_counts_as_long_as_it_has_run() -> None:
    times = RunTimes()
    times.learn("a", 0.001)
    times.suspect_longer("a", 0.2)
    assert times.expected("a") == 0.2
    times.suspect_longer("a", 0.1)
    assert times.expected("a") == 0.2
    assert times.overall is not None
    assert 0.001 < times.overall < 0.2


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_MOST_NAMES", 3)
    times = RunTimes()
    for name in "abcd":
        times.learn(name, 1.0)
    assert times.expected("d") == 1.0
    assert times.expected("a") is None
