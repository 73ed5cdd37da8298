"""Faults of a private server, of the links to it and of clocks beside it: each does what it says, heals, and work goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import BrokerUnavailable
from stem_chaos.cluster import Cluster
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.servers import PrivatePostgres, PrivateRedis, RedisPair
from tests.fixtures import postgres_server, redis_server
from tests.fixtures.clusters import LONG, await_results, enqueue, executions, is_stopped, running_cluster, wait_for_workers
from tests.fixtures.waiting import SOON, until


@pytest.fixture(scope="module", params=["redis", pytest.param("postgres", marks=pytest.mark.soak)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """For faults that leave a cluster as it was."""
    {"redis": redis_server, "postgres": postgres_server}[request.param].need_server()
    directory = tmp_path_factory.mktemp("cluster")
    with running_cluster(directory, request.param, nodes=2, workers=1, concurrency=1, steps_clocks=True) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    wait_for_workers(shared)
    yield shared
    work_goes_on(shared)


def server_of(cluster: Cluster) -> PrivateRedis | PrivatePostgres:
    assert isinstance(cluster.server, PrivateRedis | PrivatePostgres)
    return cluster.server


def inject(cluster: Cluster, name: str, seed: int = 1) -> Injection:
    injection = FAULTS[name].begin(cluster, random.Random(seed))
    assert injection is not None
    return injection


def heal(cluster: Cluster, name: str, injection: Injection) -> None:
    FAULTS[name].heal(cluster, injection)


def is_reachable(cluster: Cluster) -> bool:
    """Whether a client gets an answer."""
    try:
        cluster.app.stores.control.cursor(["any"])
    except BrokerUnavailable:
        return False
    return True


def work_goes_on(cluster: Cluster) -> None:
    until(lambda: is_reachable(cluster), LONG, "an answer of the broker")
    await_results(enqueue(cluster, 10))


# ---------------------------------------------------------------- the server


@pytest.mark.parametrize("name", ["kill-broker", "restart-broker"])
def test_a_broker_that_was_ended_comes_back_with_what_it_had_acknowledged(cluster: Cluster, name: str) -> None:
    server = server_of(cluster)
    old = server.pid
    handles = [cluster.app.enqueue_by_name("work", [index, 0.0], countdown=1.0) for index in range(100)]
    injection = inject(cluster, name)
    assert injection.detail["everything"]
    assert not server.answers()
    assert not is_reachable(cluster)
    heal(cluster, name, injection)
    assert server.pid not in (None, old)
    await_results(handles)


def test_a_frozen_broker_stands_still_and_forgets_nothing(cluster: Cluster) -> None:
    server = server_of(cluster)
    injection = inject(cluster, "freeze-broker")
    assert server.pid is not None
    pid = server.pid
    until(lambda: is_stopped(pid), SOON, "the stop of the server")
    heal(cluster, "freeze-broker", injection)
    until(server.answers, SOON, "an answer of the server")
    assert server.pid == pid


def test_a_locked_database_needs_sqlite(cluster: Cluster) -> None:
    with pytest.raises(CannotInject, match="SQLite"):
        FAULTS["lock-database"].begin(cluster, random.Random(1))


# ---------------------------------------------------------------- the links


def test_a_cut_link_lets_nobody_through_until_it_is_healed(cluster: Cluster) -> None:
    injection = inject(cluster, "cut-link")
    assert injection.detail["everything"]
    assert not is_reachable(cluster)
    assert server_of(cluster).answers()
    heal(cluster, "cut-link", injection)
    until(lambda: is_reachable(cluster), SOON, "an answer")


def test_a_reset_link_is_open_again_at_once(cluster: Cluster) -> None:
    injection = inject(cluster, "reset-link")
    until(lambda: is_reachable(cluster), SOON, "an answer")
    heal(cluster, "reset-link", injection)


def test_a_reset_heals_nothing_else(cluster: Cluster) -> None:
    cut = inject(cluster, "cut-link")
    heal(cluster, "reset-link", inject(cluster, "reset-link"))
    assert not is_reachable(cluster)
    heal(cluster, "cut-link", cut)


def test_a_link_into_a_black_hole_makes_the_nodes_unready(cluster: Cluster) -> None:
    injection = inject(cluster, "blackhole-link")
    until(lambda: not any(node.is_ready() for node in cluster.nodes), LONG, "unready nodes")
    heal(cluster, "blackhole-link", injection)
    cluster.wait_ready()


@pytest.mark.parametrize("name", ["delay-link", "narrow-link"])
def test_work_goes_on_over_a_link_that_is_slow_or_narrow(cluster: Cluster, name: str) -> None:
    injection = inject(cluster, name)
    await_results(enqueue(cluster, 5))
    heal(cluster, name, injection)


def test_an_isolated_node_is_unready_while_the_other_does_the_work(cluster: Cluster) -> None:
    injection = inject(cluster, "isolate-node")
    (isolated,) = [node for node in cluster.nodes if node.name == injection.target]
    (other,) = [node for node in cluster.nodes if node is not isolated]
    assert injection.detail["incarnations"] == [worker.incarnation for worker in isolated.workers()]
    assert "everything" not in injection.detail
    until(lambda: not isolated.is_ready(), LONG, "an unready node")
    assert other.is_ready()
    await_results(enqueue(cluster, 10))
    heal(cluster, "isolate-node", injection)
    cluster.wait_ready()


# ---------------------------------------------------------------- clocks


def test_a_stepped_clock_is_that_of_one_node_and_of_every_process_below_it(cluster: Cluster) -> None:
    stepped = {pid for worker in cluster.nodes[0].workers() for pid in worker.executors}
    seen: dict[int, float] = {}
    clock = cluster.nodes[0].clock
    assert clock is not None
    clock.step(3600.0)
    done = 0
    while len(seen) < 2:  # both nodes have run something
        await_results(enqueue(cluster, 10))
        done += 10
        seen = {each.pid: each.started_at - time.time() for each in executions(cluster)[-done:]}
    clock.step(0.0)
    for pid, ahead in seen.items():
        assert (ahead > 3000.0) == (pid in stepped)


def test_a_clock_is_stepped_and_set_right_while_work_goes_on(cluster: Cluster) -> None:
    injection = inject(cluster, "step-clock")
    assert injection.detail["seconds"]
    await_results(enqueue(cluster, 10))
    heal(cluster, "step-clock", injection)


# ---------------------------------------------------------------- a replica


def test_a_replica_takes_over_without_what_it_had_not_heard(tmp_path: Path) -> None:
    redis_server.need_server()
    with running_cluster(tmp_path, "redis", workers=1, concurrency=1, has_replica=True) as cluster:
        pair = cluster.server
        assert isinstance(pair, RedisPair)
        await_results(enqueue(cluster, 10))
        ports = pair.primary.port, pair.replica.port
        for number in range(2):
            pair.primary.command("SET", f"heard-{number}", 1)
            until(lambda: pair.replica.command("EXISTS", f"heard-{number}"), SOON, "replication")  # noqa: B023  # called at once
            injection = inject(cluster, "fail-over")
            assert injection.detail["forgets"]
            pair.primary.command("SET", f"unheard-{number}", 1)
            assert pair.primary.command("EXISTS", f"unheard-{number}") == 1
            heal(cluster, "fail-over", injection)
            assert (pair.replica.port, pair.primary.port) == (ports if number == 0 else ports[::-1])
            assert pair.primary.command("EXISTS", f"heard-{number}") == 1
            assert pair.primary.command("EXISTS", f"unheard-{number}") == 0
            work_goes_on(cluster)
