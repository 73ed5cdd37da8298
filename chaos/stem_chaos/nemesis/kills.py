"""Kills an actor, an executor, a worker, a node, or everything on a host at once; whoever supervises it starts it again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_actors import Stem
from stem_actors.actors import messages as m
from stem_actors.errors import StemError
from stem_actors.model.control import ControlCommand, encode_command, reply_channel, worker_channel
from stem_chaos.nemesis.fault import Injection
from stem_chaos.nemesis.victims import choose_executor, choose_node, choose_worker, covered, named
from stem_chaos.node import is_running
from stem_chaos.waiting import within

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster
    from stem_chaos.node import Node

__all__ = ["ACTORS", "KillActor", "KillExecutor", "KillHost", "KillNode", "KillWorker"]

ACTORS = (m.SETTLER, m.LEASE_RENEWER, m.EXECUTOR_POOL, m.CONSUMER, m.HOUSEKEEPER, m.HEARTBEAT, m.REVOKE_LISTENER)
_DIES_WITHIN = 5.0
_ANSWERS_WITHIN = 0.5


@dataclass(frozen=True, slots=True)
class KillActor:
    """Asks a worker, over the broker, to let one of its actors crash; it may obey for as long as the fault lasts.

    Only the pool's death ends work: its executors die with it. Whatever else dies has to cost nothing.
    """

    name: str = "kill-actor"
    scope: str = "actors"
    lasts: float = 2.0
    actor: str | None = None

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        worker = choose_worker(cluster, chance)
        actor = self.actor or chance.choice(ACTORS)
        if worker is None or worker.worker_id is None:
            return None
        told = threading.Event()
        # A broker that is away must not hold up the nemesis: the thread goes on alone, and the command expires.
        threading.Thread(target=self._ask, args=(cluster.app, worker.worker_id, actor, told), daemon=True).start()
        is_confirmed = told.wait(_ANSWERS_WITHIN)
        now = [each for each in cluster.workers() if each.pid == worker.pid]  # executors come and go until it obeys
        hit = covered([worker], *(pid for each in now for pid in each.executors)) if actor == m.EXECUTOR_POOL else {}
        return Injection(f"{actor} of {worker.worker_id}", {**hit, "is_confirmed": is_confirmed})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        pass  # its supervisor has started it again

    def _ask(self, app: Stem, worker_id: str, actor: str, told: threading.Event) -> None:
        control, settings = app.stores.control, app.settings
        request = uuid.uuid4().hex
        channels = [reply_channel(settings.channel_namespace, request)]
        command = ControlCommand(request, "kill_actor", [worker_id], {"actor": actor}, time.time() + self.lasts)
        with suppress(StemError):
            cursor = control.cursor(channels)
            control.send(worker_channel(settings.channel_namespace, worker_id), encode_command(command), self.lasts)
            if control.pull(channels, cursor, wait=self.lasts)[0]:
                told.set()


@dataclass(frozen=True, slots=True)
class KillExecutor:
    """Kills one executor, with whatever it runs."""

    name: str = "kill-executor"
    scope: str = "executor"
    lasts: float = 0.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        chosen = choose_executor(cluster, chance)
        if chosen is None:
            return None
        worker, pid = chosen
        _kill(pid)
        return Injection(f"executor {pid} of {named(worker)}", {"pids": [pid]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        pass  # its pool has started another


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Kills a worker; its executors die with it, and its leases have to lapse."""

    name: str = "kill-worker"
    scope: str = "worker"
    lasts: float = 0.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        worker = choose_worker(cluster, chance)
        if worker is None:
            return None
        _kill(worker.pid, *worker.executors, only_first=True)
        return Injection(named(worker), covered([worker]))

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        pass  # its node has started another


@dataclass(frozen=True, slots=True)
class KillNode:
    """Kills the node's own process. Its workers notice, finish what they run, and leave; theirs are the leases that may lapse."""

    name: str = "kill-node"
    scope: str = "node"
    lasts: float = 1.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        node = choose_node(cluster, chance)
        if node is None:
            return None
        detail = {**covered(node.workers(), node.pid), "node": node.name}
        node.hold_down()
        return Injection(node.name, detail)

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _node(cluster, injection).let_up()


@dataclass(frozen=True, slots=True)
class KillHost:
    """Kills a node and everything below it at the same moment, as the loss of its host does."""

    name: str = "kill-host"
    scope: str = "node"
    lasts: float = 2.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        node = choose_node(cluster, chance)
        if node is None:
            return None
        workers = node.workers()
        detail = {**covered(workers, node.pid), "node": node.name}
        node.hold_down()
        _kill(*(pid for worker in workers for pid in (worker.pid, *worker.executors)))
        return Injection(f"host of {node.name}", detail)

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _node(cluster, injection).let_up()


def _node(cluster: Cluster, injection: Injection) -> Node:
    return next(node for node in cluster.nodes if node.name == injection.detail["node"])


def _kill(*pids: int, only_first: bool = False) -> None:
    """SIGKILL, to the first alone if the others die with it; wait until they are all gone."""
    for pid in pids[:1] if only_first else pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    within(_DIES_WITHIN, lambda: not any(map(is_running, pids)))
