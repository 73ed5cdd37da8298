"""What the demo kills, and whom each kill may have cost a run."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from node import Node, Worker

from stem_actors import Stem
from stem_actors.model.control import ControlCommand, decode_reply, encode_command, reply_channel, worker_channel

__all__ = ["PLAN", "Kill", "Target"]

_ANSWERS_WITHIN, _DIES_WITHIN = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that took place, between `began` and `ended` (seconds since the epoch), when `done` of the work was done (0 to 1).

    `pids`  the executors whose runs it may have cost: the killed ones, or those whose worker lost an actor
    """

    name: str
    victim: str
    pids: frozenset[int]
    done: float
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Target:
    """Kill one of these when `at` of the work is done (0 to 1). `strike` answers None when there is none just then."""

    at: float
    name: str
    strike: Callable[[Node, Stem], tuple[str, frozenset[int]] | None]

    def kill(self, node: Node, app: Stem, done: float) -> Kill | None:
        began = time.time()
        try:
            struck = self.strike(node, app)
        except (ProcessLookupError, psutil.NoSuchProcess):  # it has just ended by itself
            return None
        return None if struck is None else Kill(self.name, *struck, done, began, time.time())


def kill_executor(node: Node, _app: Stem) -> tuple[str, frozenset[int]] | None:
    """SIGKILL an executor in the middle of a task."""
    for worker in _ready_workers(node):
        for pid in worker.executors & _descendants(worker.pid):
            if psutil.Process(pid).status() == psutil.STATUS_RUNNING:  # one that waits for work sleeps
                os.kill(pid, signal.SIGKILL)
                return f"executor process {pid} of {worker.id} with SIGKILL", frozenset({pid})
    return None


def kill_worker(node: Node, _app: Stem) -> tuple[str, frozenset[int]] | None:
    """SIGKILL a whole worker: its actors, and its executors with it."""
    for worker in _ready_workers(node)[-1:]:
        orphans = psutil.Process(worker.pid).children(recursive=True)
        os.kill(worker.pid, signal.SIGKILL)
        psutil.wait_procs(orphans, _DIES_WITHIN)  # they notice, and until then go on with what they had been given
        return f"worker process {worker.pid} ({worker.id}) with SIGKILL, and so its executors", frozenset(o.pid for o in orphans)
    return None


def kill_actor(actor: str) -> Callable[[Node, Stem], tuple[str, frozenset[int]] | None]:
    """Crash one actor inside a worker by a control command, which a node obeys only with --enable-chaos."""

    def strike(node: Node, app: Stem) -> tuple[str, frozenset[int]] | None:
        for worker in _ready_workers(node)[:1]:
            if _ask(app, worker.id, ControlCommand(uuid.uuid4().hex, "kill_actor", (worker.id,), {"actor": actor})):
                return f"actor {actor!r} of {worker.id} by a control command", _descendants(worker.pid)
        return None

    return strike


PLAN: Sequence[Target] = (
    Target(0.15, "executor killed", kill_executor),
    Target(0.25, "consumer killed", kill_actor("consumer")),
    Target(0.40, "settler killed", kill_actor("settler")),
    Target(0.55, "worker killed", kill_worker),
)


def _ready_workers(node: Node) -> list[Worker]:
    return [worker for worker in node.workers() if worker.is_ready and psutil.pid_exists(worker.pid)]


def _descendants(pid: int) -> frozenset[int]:
    return frozenset(child.pid for child in psutil.Process(pid).children(recursive=True))


def _ask(app: Stem, worker_id: str, command: ControlCommand) -> bool:
    """Send a command and wait for the worker's answer: whether it obeyed."""
    control, namespace = app.stores.control, app.settings.channel_namespace
    channels = [reply_channel(namespace, command.request_id)]
    cursor = control.cursor(channels)
    control.send(worker_channel(namespace, worker_id), encode_command(command), ttl=60.0)
    replies, _ = control.pull(channels, cursor, wait=_ANSWERS_WITHIN)
    return any(decode_reply(reply).status == "ok" for reply in replies)
