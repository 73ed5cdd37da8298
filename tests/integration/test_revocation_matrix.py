"""A revocation in every state that a task can be in, on either broker, with and without `terminate`.

Whatever the state: what has not started never does, and its record says why and by whom; what runs goes on and is not retried,
or ends at once; nothing else is hurt; and the queue is empty afterwards. The default run has one row of each state, a soak all.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Handle, TaskCancelled, TaskState
from stem_actors.clock import SystemClock
from stem_actors.executors.application import ApplicationSource
from stem_actors.fleet import Fleet as Commands
from stem_actors.model.shutdown import ShutdownMode
from tests.fixtures.fleet import Fleet, ProcessWorker
from tests.fixtures.redis_server import RedisServer, own_server
from tests.fixtures.waiting import SOON, Journal, until

SOURCE = ApplicationSource("tests.fixtures.matrix_app:app")
REASON = "wrong month"
PATIENT = 8.0  # seconds until a worker kills what ignores it; what heeds has ended long before
IMPATIENT = 0.4


@dataclass
class World:
    """A broker, workers on it, and who revokes."""

    kind: str
    folder: Path
    server: RedisServer | None
    terminates: bool
    fleet: Fleet = field(init=False)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        more: dict[str, Any] = {} if self.server is None else {"broker_url": self.server.tcp_url}
        self.fleet = Fleet(self.folder, self.kind, force_shutdown_after=PATIENT, **more)
        self.journal = Journal(self.folder)

    # ------------------------------------------------------------ what happens

    def start(self, **settings: Any) -> ProcessWorker:
        return self.fleet.start_process(source=SOURCE, **settings)

    def gate(self, name: str) -> Path:
        return self.folder / f"gate-{name}"

    def open(self, name: str) -> None:
        self.gate(name).touch()

    def work(self, word: str, how: str = "sleep", name: str = "work", fails: bool = False, **options: Any) -> Handle[Any]:
        """A task that runs until the gate of its word is open."""
        return self.fleet.enqueue(name, self.journal.path, word, how, str(self.gate(word)), fails, **options)

    def quick(self, word: str, **options: Any) -> Handle[Any]:
        return self.fleet.enqueue("quick", self.journal.path, word, **options)

    def running(self, word: str, how: str = "sleep", name: str = "work", fails: bool = False) -> Handle[Any]:
        handle = self.work(word, how, name, fails)
        self.journal.wait_for(f"{word}-starts")
        return handle

    def revoke(self, *handles: Handle[Any]) -> None:
        """Revoke, and wait until every worker knows."""
        self.fleet.app.client.revoke([handle.id for handle in handles], self.terminates, REASON)
        commands = Commands(self.fleet.app.stores, self.fleet.settings.channel_namespace, SystemClock())
        ids = {handle.id for handle in handles}
        workers = [worker for worker in self.fleet.workers if isinstance(worker, ProcessWorker)]
        alive = [worker.name for worker in workers if worker.process.poll() is None]

        def known() -> bool:
            answers = commands.ask("inspect", {"includeRevoked": True}, alive, SOON)
            return all(ids <= {each["taskId"] for each in reply.payload["revoked"]} for reply in answers.replies)

        if alive:
            until(known, what="every worker knows of the revocation")

    # ------------------------------------------------------------ what must hold

    def is_cancelled(self, handle: Handle[Any], runs: Sequence[str]) -> None:
        """It ends as cancelled, with all that is to be known, and has left these lines."""
        with pytest.raises(TaskCancelled, match=REASON):
            handle.get(SOON)
        record = handle.status()
        assert record.state is TaskState.CANCELLED
        assert (record.meta["revoked"], record.meta["revokedReason"]) == (True, REASON)
        assert record.meta["revokedBy"] == f"{os.uname().nodename}:{os.getpid()}"
        assert abs(record.meta["revokedAt"] / 1000 - time.time()) < 2 * SOON
        self.has_run(runs)

    def has_run(self, lines: Sequence[str]) -> None:
        """What the task `x` has written down."""
        assert [line.split()[0] for line in self.journal.lines() if line.startswith("x-")] == list(lines)

    def goes_on_or_ends_at_once(self, handle: Handle[Any], kill_after: float | None = None) -> None:
        """A running task `x`, revoked just now."""
        began = time.monotonic()
        if not self.terminates:
            assert handle.status().state in (TaskState.RUNNING, TaskState.QUEUED)  # none yet, where it has just begun
            self.open("x")
            assert handle.get(SOON) == "x"
            self.has_run(["x-starts", "x-ends"])
        else:
            self.is_cancelled(handle, ["x-starts"])
            took = time.monotonic() - began
            assert took < PATIENT / 2, f"it was not interrupted but killed after {took:.1f} s"
            if kill_after is not None:
                assert took > kill_after / 2, "it ignores interrupts, so it was killed too early"

    def is_settled(self) -> None:
        """Nothing is left at the broker."""

        def left() -> list[tuple[int, int, int, int]]:
            depths = self.fleet.app.stores.broker.depths(["default"])
            return [(each.pending, each.inflight, each.delayed, each.dead) for each in depths]

        until(lambda: not any(map(sum, left())), what=f"an empty queue, but {left()}")


# ---------------------------------------------------------------- the states


def delayed(world: World) -> None:
    world.start()
    handle = world.quick("x", countdown=0.7)
    world.revoke(handle)
    world.is_cancelled(handle, [])


def queued(world: World) -> None:
    world.start(concurrency=1, prefetch_multiplier=1)
    head = world.running("head")
    before = [world.quick(f"before-{number}") for number in range(4)]  # more than a worker holds
    handle = world.quick("x")
    world.revoke(handle)
    world.open("head")
    world.is_cancelled(handle, [])
    assert [each.get(SOON) for each in (head, *before)] == ["head", *(f"before-{number}" for number in range(4))]


def prefetched_in_a_worker(world: World) -> None:
    world.start(concurrency=1)
    head = world.running("head")
    handle = world.quick("x")
    depth = world.fleet.app.stores.broker.depths
    until(lambda: depth(["default"])[0].inflight == 2, what="it is held by the worker")
    world.revoke(handle)
    world.is_cancelled(handle, [])
    assert head.status().state is not TaskState.SUCCEEDED, "it had to wait for the one before it"
    world.open("head")
    assert head.get(SOON) == "head"


def prefetched_inside_an_executor(world: World) -> None:
    world.start(concurrency=1)
    for _ in range(3):  # what is known to be short is handed over ahead of time
        for each in [world.quick(f"known-{number}") for number in range(30)]:
            each.get(SOON)
    slow = world.fleet.enqueue("quick", world.journal.path, "slow", 0.5)
    words = ["x" if number == 10 else f"behind-{number}" for number in range(20)]
    behind = dict(zip(words, [world.quick(word) for word in words], strict=True))
    world.journal.wait_for("slow-starts")
    world.fleet.app.client.revoke([behind["x"].id], world.terminates, REASON)  # at once: it is taken back in a tenth of a second
    world.is_cancelled(behind.pop("x"), [])
    assert slow.get(SOON) == "slow"
    assert [handle.get(SOON) for handle in behind.values()] == list(behind)


def starting(**settings: Any) -> Callable[[World], None]:
    """Revoked at any moment on its way: it has either never started, or what holds for running tasks holds."""

    def row(world: World) -> None:
        world.start(**settings)
        chance = random.Random(f"{world.kind} {world.terminates}")
        for number in range(12):
            word = f"{number}-x"
            handle = world.work(word, name="work" if number % 3 else "awork")
            time.sleep(chance.uniform(0.0, 0.012))  # the moment is what is tried out, not waited for
            world.revoke(handle)
            if not world.terminates:
                world.open(word)
            try:
                handle.get(SOON)
            except TaskCancelled:
                assert world.terminates or f"{word}-starts" not in world.journal.words()
                assert f"{word}-ends" not in world.journal.words()
            else:
                assert not world.terminates
                assert world.journal.words()[f"{word}-ends"] == 1

    return row


def running(how: str = "sleep", name: str = "work", kill_after: float | None = None, **settings: Any) -> Callable[[World], None]:
    def row(world: World) -> None:
        world.start(force_shutdown_after=PATIENT if kill_after is None else kill_after, **settings)
        neighbour = world.running("neighbour", name=name)
        handle = world.running("x", how, name)
        world.revoke(handle)
        world.goes_on_or_ends_at_once(handle, kill_after)
        world.open("neighbour")
        assert neighbour.get(SOON) == "neighbour"
        if kill_after is None:
            assert world.journal.words()["neighbour-starts"] == 1
        assert neighbour.status().attempt == 0

    return row


def running_and_then_failing(world: World) -> None:
    world.start()
    handle = world.running("x", fails=True)
    world.revoke(handle)
    world.open("x")
    world.is_cancelled(handle, ["x-starts"])


def waiting_for_its_retry(world: World) -> None:
    world.start()
    world.open("x")
    handle = world.work("x", fails=True)
    until(lambda: handle.status().state is TaskState.RETRIED, what="it waits for its retry")
    world.revoke(handle)
    world.is_cancelled(handle, ["x-starts"] * world.journal.words()["x-starts"])
    assert world.journal.words()["x-starts"] <= 2, "the retry may have begun before it was revoked; another must not"


def no_worker_is_up(world: World) -> None:
    handle = world.quick("x")
    world.revoke(handle)
    world.start()
    world.is_cancelled(handle, [])


def everything_is_restarted(world: World) -> None:
    worker = world.start()
    handle = world.quick("x", countdown=2.0)
    other = world.quick("other", countdown=2.0)
    world.revoke(handle)
    worker.shut_down(ShutdownMode.HARD)
    assert worker.wait() == 0
    world.fleet.app.close()
    if world.server is not None:
        world.server.kill()
        world.server.start()
    world.start()
    world.is_cancelled(handle, [])
    assert other.get(SOON) == "other"


def its_executor_dies(world: World) -> None:
    """Revoked, it goes on; then it is lost with its executor, and does not begin again."""
    worker = world.start(concurrency=1)
    handle = world.running("x")
    world.revoke(handle)
    if not world.terminates:
        os.kill(int(world.journal.wait_for("x-starts")[0]), 9)
    world.is_cancelled(handle, ["x-starts"])
    assert worker.process.poll() is None


STATES: dict[str, Callable[[World], None]] = {
    "delayed": delayed,
    "queued": queued,
    "prefetched in a worker": prefetched_in_a_worker,
    "prefetched inside an executor": prefetched_inside_an_executor,
    "starting": starting(),
    "starting in a thread": starting(threads=2),
    "asleep": running(),
    "computing": running("spin"),
    "deaf": running("deaf", kill_after=IMPATIENT),
    "async": running(name="awork"),
    "async and deaf": running("deaf", "awork", kill_after=IMPATIENT),
    "threaded": running(threads=2),
    "threaded and deaf": running("deaf", kill_after=IMPATIENT, threads=2),
    "failing": running_and_then_failing,
    "retry": waiting_for_its_retry,
    "dying": its_executor_dies,
    "no worker": no_worker_is_up,
    "restart": everything_is_restarted,
}
GOES_ON = ("asleep", "starting", "queued", "failing", "retry", "dying", "no worker")
"""What is revoked without `terminate` in the default run."""


def rows() -> Iterator[Any]:
    """All of them; those beyond one of each state are a soak's."""
    for number, state in enumerate(STATES):
        for kind in ("sqlite", "redis"):
            for terminates in (False, True):
                is_first = kind == ("sqlite", "redis")[number % 2] and terminates != (state in GOES_ON)
                marks = () if is_first else (pytest.mark.soak,)
                yield pytest.param(kind, state, terminates, marks=marks, id=f"{state}, {kind}{', terminate' * terminates}")


@pytest.mark.parametrize(("kind", "state", "terminates"), list(rows()))
def test_revoked(kind: str, state: str, terminates: bool, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(own_server("--appendonly", "yes")) if kind == "redis" else None
        world = World(kind, tmp_path, server, terminates)
        stack.callback(world.fleet.close)
        STATES[state](world)
        world.is_settled()
