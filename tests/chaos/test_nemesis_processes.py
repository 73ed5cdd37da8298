"""Faults that kill, stop and starve processes of a small cluster on SQLite: each does what it says, and work goes on."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from stem_actors.errors import StorageFull
from stem_chaos.cluster import Cluster
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.nemesis.kills import ACTORS
from stem_chaos.node import is_running
from tests.fixtures.clusters import (
    await_results,
    enqueue,
    executions,
    is_stopped,
    running_cluster,
    wait_for_start,
    wait_for_workers,
)
from tests.fixtures.waiting import SOON, until


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For faults that leave a cluster as it was."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), workers=2, concurrency=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    wait_for_workers(shared)
    yield shared
    wait_for_workers(shared)
    await_results(enqueue(shared, 10))


def inject(cluster: Cluster, name: str, seed: int = 1) -> Injection:
    injection = FAULTS[name].begin(cluster, random.Random(seed))
    assert injection is not None
    return injection


def heal(cluster: Cluster, name: str, injection: Injection) -> None:
    FAULTS[name].heal(cluster, injection)


def pids_of(cluster: Cluster) -> set[int]:
    """Workers and executors."""
    return {pid for worker in cluster.workers() for pid in (worker.pid, *worker.executors)}


# ---------------------------------------------------------------- kills


def test_a_killed_executor_is_dead_and_its_task_runs_again(cluster: Cluster) -> None:
    handles = enqueue(cluster, 12, seconds=0.5)
    wait_for_start(cluster)
    before = pids_of(cluster)
    injection = inject(cluster, "kill-executor")
    (pid,) = injection.detail["pids"]
    assert pid in before
    assert not is_running(pid)
    ran = {handle.get(timeout=SOON) for handle in handles}
    cut = [each for each in executions(cluster) if each.pid == pid and each.ended_at is None]
    assert len(cut) == 1
    assert len(ran) == 12
    wait_for_workers(cluster)
    assert before - pids_of(cluster) == {pid}


def test_a_killed_worker_takes_its_executors_along_and_gets_a_successor(cluster: Cluster) -> None:
    handles = enqueue(cluster, 12, seconds=0.5)
    wait_for_start(cluster)
    before = {worker.incarnation: worker for worker in cluster.workers()}
    injection = inject(cluster, "kill-worker")
    (incarnation,) = injection.detail["incarnations"]
    victim = before[incarnation]
    assert injection.target == victim.worker_id
    assert set(injection.detail["pids"]) == {victim.pid, *victim.executors}
    assert not any(map(is_running, injection.detail["pids"]))
    await_results(handles)
    wait_for_workers(cluster)
    after = {worker.worker_id: worker for worker in cluster.workers()}
    assert after[victim.worker_id].incarnation not in before


def test_a_killed_node_stays_away_until_it_is_healed_and_its_workers_leave(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    old, before = node.pid, cluster.workers()
    injection = inject(cluster, "kill-node")
    assert old is not None
    assert not is_running(old)
    assert set(injection.detail["incarnations"]) == {worker.incarnation for worker in before}
    cluster.keep_alive()
    assert node.pid is None
    heal(cluster, "kill-node", injection)
    assert node.pid not in (None, old)
    until(lambda: not any(worker.is_alive() for worker in before), SOON, "the old workers' leaving")


def test_the_loss_of_a_host_ends_everything_on_it_at_once(cluster: Cluster) -> None:
    (node,) = cluster.nodes
    before = {node.pid} | pids_of(cluster)
    handles = enqueue(cluster, 12, seconds=0.5)
    wait_for_start(cluster)
    injection = inject(cluster, "kill-host")
    assert set(injection.detail["pids"]) == before
    assert not any(map(is_running, injection.detail["pids"]))
    heal(cluster, "kill-host", injection)
    await_results(handles)


@pytest.mark.parametrize("actor", ACTORS)
def test_a_killed_actor_is_started_again_by_its_supervisor(cluster: Cluster, actor: str) -> None:
    (node,) = cluster.nodes
    start = node.log.stat().st_size
    injection = inject(cluster, f"kill-actor/{actor}")
    assert injection.target.startswith(f"{actor} of node1-")

    def said() -> str:
        return node.log.read_text()[start:]

    until(lambda: actor in said() and "Kill" in said(), SOON, f"a word of the death of {actor} in {said()}")
    heal(cluster, f"kill-actor/{actor}", injection)
    assert bool(injection.detail.get("pids")) == (actor == "executor_pool")


def test_kill_actor_chooses_among_all_actors(cluster: Cluster) -> None:
    targets = {inject(cluster, "kill-actor", seed).target.partition(" ")[0] for seed in range(3)}
    assert targets <= set(ACTORS)
    assert len(targets) > 1


# ---------------------------------------------------------------- pauses


@pytest.mark.parametrize("name", ["pause-executor", "pause-worker", "pause-node", "pause-host"])
def test_what_is_paused_stands_still_until_it_is_healed(cluster: Cluster, name: str) -> None:
    injection = inject(cluster, name)
    stopped = injection.detail["stopped"]
    assert stopped
    until(lambda: all(map(is_stopped, stopped)), SOON, f"{stopped} stopped")
    assert set(stopped) <= set(injection.detail["pids"])
    heal(cluster, name, injection)
    until(lambda: not any(map(is_stopped, stopped)), SOON, f"{stopped} going on")
    assert all(map(is_running, stopped))


def test_a_paused_worker_names_the_holder_whose_leases_may_lapse(cluster: Cluster) -> None:
    injection = inject(cluster, "pause-worker")
    try:
        (worker,) = [each for each in cluster.workers() if each.pid in injection.detail["stopped"]]
        assert injection.detail["incarnations"] == [worker.incarnation]
        assert set(injection.detail["pids"]) == {worker.pid, *worker.executors}
    finally:
        heal(cluster, "pause-worker", injection)


# ---------------------------------------------------------------- what they share


@pytest.mark.parametrize("name", ["lock-database", "freeze-broker"])
def test_a_locked_database_takes_no_write_of_others_until_it_is_healed(cluster: Cluster, name: str) -> None:
    injection = inject(cluster, name)
    assert injection.detail["everything"]
    other = sqlite3.connect(cluster.directory / "broker" / "stem.db", timeout=0)
    with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    heal(cluster, name, injection)
    assert not is_running(injection.detail["holder"])


def test_squeezed_memory_is_held_until_it_is_healed(cluster: Cluster) -> None:
    injection = inject(cluster, "squeeze-memory")
    assert 0 < injection.detail["bytes"] <= 512 << 20
    assert psutil.Process(injection.detail["holder"]).memory_info().rss >= injection.detail["bytes"]
    heal(cluster, "squeeze-memory", injection)
    assert not is_running(injection.detail["holder"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("kill-broker", "private server"),
        ("restart-broker", "private server"),
        ("fail-over", "with a replica"),
        ("cut-link", "without TLS"),
        ("isolate-node", "without TLS"),
        ("step-clock", "clock of its own"),
        ("crash-point", "probe"),
        ("fill-disk", "small file system"),
    ],
)
def test_what_cannot_be_done_here_says_what_is_missing(cluster: Cluster, name: str, what: str) -> None:
    with pytest.raises(CannotInject, match=what):
        FAULTS[name].begin(cluster, random.Random(1))


def test_a_full_disk_refuses_what_is_new_and_keeps_what_it_has(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, is_disk_small=True) as cluster:
        try:
            injection = inject(cluster, "fill-disk")
        except CannotInject as error:
            pytest.skip(str(error))
        accepted: list[Any] = []
        with pytest.raises(StorageFull, match=r"full|failing"):
            for number in range(2000):
                accepted.append(cluster.app.enqueue_by_name("work", [number, 0.0], headers={"pad": "x" * 2000}))
        heal(cluster, "fill-disk", injection)
        await_results(accepted)


def test_the_same_seed_chooses_the_same_victim(cluster: Cluster) -> None:
    first, second = (inject(cluster, "pause-worker", seed=5) for _ in range(2))
    heal(cluster, "pause-worker", first)
    assert first.target == second.target
