"""What the revoke listener makes of the pauses that are stored."""

from __future__ import annotations

import logging

import pytest

from stem_actors.actors.paused_queues import PausedQueues
from stem_actors.actors.vitals import Vitals
from stem_actors.adapters import open_stores
from stem_actors.ports import PauseStore
from stem_actors.testing import ManualClock


@pytest.fixture
def store() -> PauseStore:
    return open_stores("memory://", clock=ManualClock()).pauses


def test_it_tells_what_has_changed_for_the_queues_of_its_worker(store: PauseStore) -> None:
    vitals = Vitals()
    queues = PausedQueues(store, ("mail", "reports"), "w-1", vitals)
    assert queues.read() == frozenset()
    store.pause(["mail", "of another"])
    assert queues.read() == {"mail"}
    assert vitals.paused == {"mail"}
    assert queues.stored == {"mail", "of another"}
    assert queues.read() == frozenset()
    store.resume(["mail"])
    store.pause(["reports"])
    assert queues.read() == {"mail", "reports"}
    assert vitals.paused == {"reports"}


def test_one_that_starts_anew_goes_on_from_what_is_known(store: PauseStore) -> None:
    vitals = Vitals(paused=frozenset(("mail",)))
    store.pause(["mail"])
    assert PausedQueues(store, ("mail",), "w-1", vitals).read() == frozenset()
    assert vitals.paused == {"mail"}


def test_the_log_says_who_paused_what_and_why_and_when_nothing_is_left(
    store: PauseStore, caplog: pytest.LogCaptureFixture
) -> None:
    queues = PausedQueues(store, ("mail", "reports"), "w-1", Vitals())
    with caplog.at_level(logging.INFO, "stem.control"):
        store.pause(["mail"], "it moves", "ada")
        queues.read()
        store.pause(["reports"])
        queues.read()
        store.resume(["mail"])
        queues.read()
    assert [record.getMessage() for record in caplog.records] == [
        "w-1: queue mail is paused by ada: it moves",
        "w-1: queue reports is paused",
        "w-1: all its queues are paused; it receives nothing",
        "w-1: queue mail is resumed",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}
