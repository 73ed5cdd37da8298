"""Who is hit: a choice among what runs, in an order that does not depend on process ids, and what a fault says of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stem_chaos.node import Node, WorkerProcess

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["choose_executor", "choose_node", "choose_worker", "covered", "named"]


def choose_node(cluster: Cluster, chance: random.Random) -> Node | None:
    """A node that runs."""
    running = [node for node in cluster.nodes if node.pid is not None]
    return chance.choice(running) if running else None


def choose_worker(cluster: Cluster, chance: random.Random) -> WorkerProcess | None:
    """A worker that has reported, so that its incarnation is known: what holds leases has."""
    workers = [worker for worker in cluster.workers() if worker.incarnation is not None]
    return chance.choice(workers) if workers else None


def choose_executor(cluster: Cluster, chance: random.Random) -> tuple[WorkerProcess, int] | None:
    """An executor, and its worker."""
    workers = [worker for worker in cluster.workers() if worker.executors]
    if not workers:
        return None
    worker = chance.choice(workers)
    return worker, chance.choice(sorted(worker.executors))


def covered(workers: Iterable[WorkerProcess], *pids: int | None) -> dict[str, Any]:
    """Detail of a fault that hits these workers with their executors, and further processes."""
    hit = list(workers)
    mine = {worker.pid for worker in hit} | {pid for worker in hit for pid in worker.executors}
    return {
        "pids": sorted(mine | {pid for pid in pids if pid is not None}),
        "incarnations": [worker.incarnation for worker in hit if worker.incarnation is not None],
    }


def named(worker: WorkerProcess) -> str:
    return worker.worker_id or f"worker {worker.pid}"
