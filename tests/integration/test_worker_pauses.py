"""Paused queues in whole workers: what comes back, what goes on, and what a restarted actor still knows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stem_actors.actors import messages as m
from stem_actors.model.control import ControlCommand, broadcast_channel, encode_command
from stem_actors.ports import QueueDepth
from tests.fixtures.fleet import Fleet, RunningWorker
from tests.fixtures.waiting import Journal, until

LONG = 5.0


def tell(fleet: Fleet, paused: Sequence[str] = (), resumed: Sequence[str] = ()) -> None:
    """Store it, and tell the workers, as the commands do."""
    stores = fleet.app.stores
    stores.pauses.pause(paused, "a test")
    stores.pauses.resume(resumed)
    for type, queues in (("queue_pause", paused), ("queue_resume", resumed)):
        if queues:
            command = ControlCommand(f"request-{type}", type, payload={"queues": list(queues)})
            stores.control.send(broadcast_channel("stem"), encode_command(command), 10.0)


def knows(worker: RunningWorker, *queues: str) -> bool:
    paused: list[str] = worker.reports.snapshot["extras"]["paused_queues"]
    return paused == list(queues)


def depth(fleet: Fleet, queue: str = "default") -> QueueDepth:
    (found,) = fleet.app.stores.broker.depths([queue])
    return found


def restarts(worker: RunningWorker, actor: str) -> float:
    return sum(count for name, count in worker.reports.counters.items() if name.startswith(f"stem_actor_restarts_total {actor} "))


def test_work_of_a_paused_queue_stays_where_it_is_and_other_queues_go_on(fleet: Fleet, journal: Journal) -> None:
    worker = fleet.start(queues=("default", "mail"))
    tell(fleet, paused=["mail"])
    until(lambda: knows(worker, "mail"))
    held_up = fleet.enqueue("note", journal.path, "mail", queue="mail")
    fleet.enqueue("note", journal.path, "other").get(20)
    assert depth(fleet, "mail").pending == 1
    tell(fleet, resumed=["mail"])
    held_up.get(20)
    assert journal.words() == {"mail": 1, "other": 1}


def test_what_waits_inside_an_executor_comes_back_as_well(fleet: Fleet, journal: Journal) -> None:
    """Short tasks wait behind one another in an executor; a long one among them holds them up."""
    worker = fleet.start(concurrency=1)
    for _ in range(30):
        fleet.enqueue("note", journal.path, "warm-up").get(20)
    fleet.enqueue("nap", journal.path, "long", 1.0)
    journal.wait_for("long-starts")
    handles = [fleet.enqueue("note", journal.path, "short") for _ in range(8)]
    tell(fleet, paused=["default"])
    until(lambda: knows(worker, "default"))
    journal.wait_for("long")
    until(lambda: (depth(fleet).pending, depth(fleet).inflight) == (8, 0))
    assert journal.words()["short"] == 0
    tell(fleet, resumed=["default"])
    assert len({handle.get(20) for handle in handles}) == 1
    assert {handle.status().attempt for handle in handles} == {0}


def test_a_retry_of_a_task_that_was_running_waits_for_the_queue(fleet: Fleet, journal: Journal) -> None:
    worker = fleet.start(queues=("default", "mail"))
    handle = fleet.enqueue("nap", journal.path, "first", 1.0)
    journal.wait_for("first-starts")
    tell(fleet, paused=["default"])
    assert handle.get(20)  # what runs goes on
    handle = fleet.enqueue("flaky", journal.path, "again", 1)
    until(lambda: knows(worker, "default"))
    assert depth(fleet).pending == 1
    assert handle.status().attempt == 0


@pytest.mark.parametrize("actor", [m.CONSUMER, m.EXECUTOR_POOL, m.REVOKE_LISTENER])
def test_a_restarted_actor_still_knows_what_is_paused(fleet: Fleet, journal: Journal, actor: str) -> None:
    worker = fleet.start(queues=("default", "mail"))
    tell(fleet, paused=["mail"])
    until(lambda: knows(worker, "mail"))
    worker.kill_actor(actor)
    until(lambda: restarts(worker, actor) >= 1)
    held_up = fleet.enqueue("note", journal.path, "mail", queue="mail")
    fleet.enqueue("note", journal.path, "other").get(20)
    assert journal.words() == {"other": 1}
    tell(fleet, resumed=["mail"])
    held_up.get(20)


def test_a_worker_that_starts_finds_the_pauses_before_it_takes_anything(fleet: Fleet, journal: Journal) -> None:
    fleet.app.stores.pauses.pause(["mail"])
    fleet.enqueue("note", journal.path, "mail", queue="mail")
    fleet.start(queues=("mail", "default"))
    fleet.enqueue("note", journal.path, "other").get(20)
    assert (journal.words(), depth(fleet, "mail").pending) == ({"other": 1}, 1)
