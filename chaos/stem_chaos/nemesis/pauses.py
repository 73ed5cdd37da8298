"""Stops an executor, a worker, a node, or everything on a host by SIGSTOP, and lets it go on by SIGCONT."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_chaos.nemesis.fault import Injection
from stem_chaos.nemesis.victims import choose_executor, choose_node, choose_worker, covered, named

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["PauseExecutor", "PauseHost", "PauseNode", "PauseWorker"]


@dataclass(frozen=True, slots=True)
class PauseExecutor:
    """One executor stops. Its worker goes on, and kills it if that takes longer than a visibility timeout."""

    name: str = "pause-executor"
    scope: str = "executor"
    lasts: float = 2.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        chosen = choose_executor(cluster, chance)
        if chosen is None:
            return None
        worker, pid = chosen
        _send(signal.SIGSTOP, [pid])
        return Injection(f"executor {pid} of {named(worker)}", {"pids": [pid], "stopped": [pid]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _go_on(injection)


@dataclass(frozen=True, slots=True)
class PauseWorker:
    """The worker stops, its executors go on: nobody extends their leases or hears what they have done."""

    name: str = "pause-worker"
    scope: str = "worker"
    lasts: float = 4.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        worker = choose_worker(cluster, chance)
        if worker is None:
            return None
        _send(signal.SIGSTOP, [worker.pid])
        return Injection(named(worker), {**covered([worker]), "stopped": [worker.pid]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _go_on(injection)


@dataclass(frozen=True, slots=True)
class PauseNode:
    """The node's own process stops. Its workers go on; one that dies meanwhile is not replaced."""

    name: str = "pause-node"
    scope: str = "node"
    lasts: float = 4.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        node = choose_node(cluster, chance)
        if node is None or node.pid is None:
            return None
        pid = node.pid
        _send(signal.SIGSTOP, [pid])
        return Injection(node.name, {"pids": [pid], "stopped": [pid]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _go_on(injection)


@dataclass(frozen=True, slots=True)
class PauseHost:
    """A node and everything below it stop, as a host that is suspended or swaps."""

    name: str = "pause-host"
    scope: str = "node"
    lasts: float = 4.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        node = choose_node(cluster, chance)
        if node is None:
            return None
        detail = covered(node.workers(), node.pid)
        _send(signal.SIGSTOP, detail["pids"])
        return Injection(f"host of {node.name}", {**detail, "stopped": detail["pids"]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        _go_on(injection)


def _go_on(injection: Injection) -> None:
    """A process that got the number of one that died meanwhile is not harmed by SIGCONT."""
    _send(signal.SIGCONT, reversed(injection.detail["stopped"]))


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
