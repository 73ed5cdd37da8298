"""Strands: code that waits in the middle of a function, while its driver goes on."""

from __future__ import annotations

import threading
import time

import pytest

from stem_actors.testing.strands import SimulationOver, Strand, current_strand


def test_a_strand_and_its_driver_take_turns() -> None:
    steps: list[str] = []
    strand = Strand("owner")

    def work() -> None:
        here = current_strand()
        assert here is strand
        assert here.owner == "owner"
        for number in range(3):
            steps.append(f"strand {number}")
            strand.wait()

    strand.begin(work)
    while not strand.is_done:
        steps.append("driver")
        strand.resume()
    assert steps == ["strand 0", "driver", "strand 1", "driver", "strand 2", "driver"]
    assert current_strand() is None


def test_an_exception_is_raised_where_it_waits() -> None:
    caught: list[BaseException] = []
    strand = Strand(None)

    def work() -> None:
        try:
            strand.wait()
        except ValueError as error:
            caught.append(error)

    strand.begin(work)
    strand.resume(ValueError("now"))
    assert strand.is_done
    assert [str(error) for error in caught] == ["now"]


def test_unwinding_ends_what_waits_and_leaves_behind_what_waits_on() -> None:
    polite, stubborn = Strand(None), Strand(None)
    ended: list[str] = []

    def wait() -> None:
        try:
            polite.wait()
        except SimulationOver:
            ended.append("polite")

    def wait_again() -> None:
        for _ in range(5):
            try:
                stubborn.wait()
            except SimulationOver:
                ended.append("stubborn")

    polite.begin(wait)
    stubborn.begin(wait_again)
    polite.unwind()
    stubborn.unwind()
    assert ended == ["polite", *["stubborn"] * 5]


def test_threads_are_used_again() -> None:
    seen: set[int] = set()

    def work() -> None:
        seen.add(threading.get_ident())

    for _ in range(50):
        Strand(None).begin(work)
    assert len(seen) == 1


def test_the_real_sleep_is_what_it_was_outside_of_strands(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    from stem_actors import Settings, Stem
    from stem_actors.testing import Simulation

    with Simulation(Stem(settings=Settings(broker_url="memory://"))):
        time.sleep(3.0)
    assert slept == [3.0]
