"""Revocations where their place, an actor, or the moment makes it hard. Every state there is: `test_revocation_matrix.py`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from stem_actors import Handle, TaskCancelled, TaskState
from stem_actors.clock import SystemClock
from stem_actors.fleet import Fleet as Commands
from stem_actors.model.outcome import Lapsed, Release
from stem_actors.ports import Broker
from tests.fixtures.fleet import Fleet
from tests.fixtures.hand_worker import settle, take
from tests.fixtures.redis_server import own_server
from tests.fixtures.waiting import SOON, Journal, until


def is_cancelled(handle: Handle[Any]) -> None:
    with pytest.raises(TaskCancelled):
        handle.get(SOON)


def is_settled(fleet: Fleet) -> None:
    depths = fleet.app.stores.broker.depths
    until(lambda: not any(each.pending + each.inflight + each.delayed + each.dead for each in depths(["default"])))


def test_a_worker_starts_nothing_before_it_knows_what_is_revoked(processes: Fleet, journal: Journal) -> None:
    with own_server("--appendonly", "yes", "--appendfsync", "always") as server:
        processes.set(revoke_store_url=server.tcp_url)
        revoked, other = processes.enqueue("note", journal.path, "x"), processes.enqueue("note", journal.path, "y")
        revoked.revoke()
        server.kill(signal.SIGKILL)
        worker = processes.start_process(is_ready=False)
        until(lambda: any("revoke_listener" in reason or "unreachable" in reason for reason in worker.reports.reasons), 60.0)
        until(lambda: worker.reports.executors, 60.0, "executors that could work")
        assert journal.lines() == []
        server.start()
        is_cancelled(revoked)
        assert other.get(SOON) > 0
        assert journal.lines() == ["y"]


def test_a_worker_that_knows_goes_on_while_the_place_is_away(processes: Fleet, journal: Journal) -> None:
    with own_server() as server:
        processes.set(revoke_store_url=server.tcp_url)
        worker = processes.start_process()
        commands = Commands(processes.app.stores, processes.settings.channel_namespace, SystemClock())
        running = processes.enqueue("nap", journal.path, "x", 60.0)
        journal.wait_for("x-starts")
        server.kill()
        (reply,) = commands.ask("revoke", {"revocations": []}, [worker.name], SOON).replies
        assert (reply.status, "cannot be read" in str(reply.error)) == ("error", True)
        assert processes.enqueue("echo", 1).get(SOON) == 1
        (reply,) = commands.ask("ping", workers=[worker.name], timeout=SOON).replies
        assert reply.status == "ok"
        assert worker.reports.reasons == []
        server.start()
        running.revoke(terminate=True)
        is_cancelled(running)
        assert worker.reports.counters["stem_actor_restarts_total"] == 0


def test_a_pool_that_dies_starts_nothing_that_is_revoked(processes: Fleet, journal: Journal) -> None:
    worker = processes.start_process(concurrency=1)
    for number in range(3):
        head = processes.enqueue("nap", journal.path, f"head-{number}", 0.3)
        journal.wait_for(f"head-{number}-starts")
        handles = [processes.enqueue("note", journal.path, f"x-{number}") for _ in range(20)]
        processes.app.client.revoke([handle.id for handle in handles])
        worker.kill_actor("executor_pool")
        for handle in handles:
            is_cancelled(handle)
        head.get(SOON)
    assert not [line for line in journal.lines() if line.startswith("x-")]
    is_settled(processes)


def test_a_task_that_ignores_it_gains_nothing_by_being_revoked_again(processes: Fleet, journal: Journal) -> None:
    processes.set(force_shutdown_after=1.5)
    processes.start_process()
    handle = processes.enqueue("deaf", journal.path, "x")
    journal.wait_for("x-starts")
    began = time.monotonic()

    def revoked_again() -> bool:
        handle.revoke(terminate=True)
        return handle.status().state is TaskState.CANCELLED

    until(revoked_again, SOON, "its end")
    assert time.monotonic() - began < 5.0


# ---------------------------------------------------------------- while the broker is being told


class Slow:
    """A broker that answers one question only when it is let."""

    def __init__(self, broker: Broker, question: str) -> None:
        self._broker = broker
        self._question = question
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        plain: Callable[..., Any] = getattr(self._broker, name)
        return self._slowly(plain) if name == self._question else plain

    def _slowly(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            self.is_asked.set()
            assert self.may_answer.wait(SOON)
            return plain(*arguments)

        return ask


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "memory")
    yield fleet
    fleet.close()


def revoked_while_the_broker_is_told(fleet: Fleet, handle: Handle[Any], question: str) -> None:
    """Start a worker, revoke the task while the broker has been asked and not answered, and see that it never starts."""
    broker = Slow(fleet.app.stores.broker, question)
    try:
        fleet.start(stores=replace(fleet.app.stores, broker=cast(Broker, broker)))
        assert broker.is_asked.wait(SOON)
        handle.revoke(reason="not needed")
        replies = Commands(fleet.app.stores, fleet.settings.channel_namespace, SystemClock()).ask("ping", workers=["w-1"]).replies
        assert replies, "the worker has heard of it: it obeys one command after the other"
    finally:
        broker.may_answer.set()
    is_cancelled(handle)
    is_settled(fleet)


def test_a_suspect_that_is_revoked_while_it_is_marked_never_starts(memory: Fleet, journal: Journal) -> None:
    handle = memory.enqueue("note", journal.path, "x")
    for _ in range(2):
        settle(memory.app, take(memory.app), Lapsed("killed"), Release())
    revoked_while_the_broker_is_told(memory, handle, "mark_started")
    assert journal.lines() == []


def test_a_task_that_is_revoked_while_it_is_acknowledged_never_starts(memory: Fleet, journal: Journal) -> None:
    handle = memory.enqueue("once", journal.path, "x")
    revoked_while_the_broker_is_told(memory, handle, "settle")
    assert journal.lines() == []
