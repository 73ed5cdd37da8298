"""Clusters: they start, restart what ends, know their processes, and leave none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stem_actors.errors import ConfigError, OperatorError
from stem_chaos.clock import SteppedClock
from stem_chaos.cluster import Cluster, Layout, own_command
from stem_chaos.node import is_running
from stem_chaos.route import route_of
from tests.fixtures import postgres_server
from tests.fixtures.clusters import LONG, await_results, enqueue, is_stopped, running_cluster, wait_for_workers
from tests.fixtures.redis_server import own_server
from tests.fixtures.waiting import SOON, until


@pytest.mark.parametrize("broker", ["sqlite", *(pytest.param(name, marks=pytest.mark.soak) for name in ("redis", "postgres"))])
def test_a_cluster_runs_tasks_knows_its_processes_and_leaves_politely(tmp_path: Path, broker: str) -> None:
    with running_cluster(tmp_path, broker, nodes=2, workers=1, concurrency=2) as cluster:
        await_results(enqueue(cluster, 20))
        workers = cluster.workers()
        assert [worker.worker_id for worker in workers] == ["node1-1", "node2-1"]
        for worker in workers:
            assert worker.incarnation is not None
            assert worker.incarnation.startswith(f"{worker.worker_id}#")
            assert all("forkserver" in " ".join(psutil.Process(pid).cmdline()) for pid in worker.executors)
        assert cluster.stop() == [0, 0]
        assert cluster.workers() == []
        cluster.keep_alive()  # who was told to leave stays away
        assert [node.pid for node in cluster.nodes] == [None, None]


def test_a_spawned_executor_is_known_as_well(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=2, settings={"STEM_POOL": "spawn"}) as cluster:
        (worker,) = cluster.workers()
        assert len(worker.executors) == 2


def test_a_node_that_ends_is_started_again_and_its_exit_is_kept(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=1) as cluster:
        (node,) = cluster.nodes
        old = node.pid
        assert old is not None
        os.kill(old, signal.SIGTERM)
        until(lambda: node.pid is None, LONG, "the node's end")
        cluster.keep_alive()
        assert node.pid not in (None, old)
        assert node.exits == [0]
        cluster.wait_ready()


def test_a_replaced_node_runs_another_command_with_another_environment(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=1) as cluster:
        (node,) = cluster.nodes
        command = cluster.command(["env", "STEM_TEST_MARK=new", *own_command()])
        assert node.restart(command, {**node.environment, "STEM_CONCURRENCY": "2"}, LONG) == 0
        cluster.wait_ready()
        until(lambda: [len(worker.executors) for worker in cluster.workers()] == [2], SOON, "two executors")
        (worker,) = cluster.workers()
        assert psutil.Process(worker.pid).environ()["STEM_TEST_MARK"] == "new"
        await_results(enqueue(cluster, 5))


def test_a_node_can_be_added_while_the_others_run(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=1) as cluster:
        node = cluster.add_node(environment={"STEM_TEST_MARK": "added"})
        wait_for_workers(cluster)
        assert node.name == "node2"
        assert psutil.Process(node.pid).environ()["STEM_TEST_MARK"] == "added"
        assert [worker.worker_id for worker in cluster.workers()] == ["node1-1", "node2-1"]


def test_closing_ends_what_is_stopped_and_what_has_lost_its_node(tmp_path: Path) -> None:
    with running_cluster(tmp_path, nodes=2, workers=1, concurrency=1) as cluster:
        first, second = cluster.nodes
        orphan, stopped = (node.workers()[0] for node in cluster.nodes)
        enqueue(cluster, 2, seconds=30.0)
        assert second.pid is not None
        for pid in (second.pid, stopped.pid, *stopped.executors, orphan.pid):
            os.kill(pid, signal.SIGSTOP)
            until(lambda pid=pid: is_stopped(pid), SOON, "a stopped process")  # type: ignore[misc]  # a loop's own lambda
        first.kill()
        assert is_running(orphan.pid)
        cluster.close()
        assert not any(map(is_running, (second.pid or 0, orphan.pid, stopped.pid, *orphan.executors, *stopped.executors)))
        cluster.close()


def test_stopping_wakes_what_is_stopped_so_that_it_can_leave(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=1) as cluster:
        (worker,) = cluster.workers()
        os.kill(worker.pid, signal.SIGSTOP)
        until(lambda: is_stopped(worker.pid), SOON, "a stopped worker")
        assert cluster.stop() == [0]


def test_an_application_that_cannot_be_imported_is_told_with_what_the_node_said(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "sqlite", Layout("no_such_module:app", is_recorded=False))
    try:
        cluster.start()
        with pytest.raises(ConfigError, match="no_such_module"):
            cluster.wait_ready()
    finally:
        cluster.close()


def test_a_cluster_that_does_not_get_ready_says_where_to_look(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=1, concurrency=1) as cluster:
        (node,) = cluster.nodes
        node.send(signal.SIGSTOP)
        with pytest.raises(OperatorError, match=r"node1 not ready within 0.2 s; see .*node1\.log"):
            cluster.wait_ready(timeout=0.2)


def test_a_named_broker_is_reached_through_links_and_never_touched(tmp_path: Path) -> None:
    with own_server() as server:
        for url in (f"{server.tcp_url}?wait_replicas=0", f"{server.url}&wait_replicas=0"):
            with running_cluster(tmp_path, url, workers=1, concurrency=1) as cluster:
                assert cluster.server is None
                assert cluster.url.startswith("redis://127.0.0.1:")
                assert cluster.url.endswith("/0?wait_replicas=0")
                assert len(cluster.links) == 2
                await_results(enqueue(cluster, 5))
                assert cluster.stop() == [0]
        assert server.answers()


def test_user_and_password_of_a_named_broker_stay_in_its_url(tmp_path: Path) -> None:
    with own_server("--requirepass", "secret") as server:
        url = f"redis://:secret@127.0.0.1:{server.port}/3"
        with running_cluster(tmp_path, url, workers=1, concurrency=1) as cluster:
            assert cluster.url.startswith("redis://:secret@127.0.0.1:")
            assert cluster.url.endswith("/3")
            await_results(enqueue(cluster, 5))


def test_a_broker_over_tls_has_no_link(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "rediss://broker.example:6379/0", Layout("tests.fixtures.kill_tasks:app", nodes=0))
    cluster.start()
    assert cluster.link is None
    assert cluster.url == "rediss://broker.example:6379/0"
    cluster.close()


def test_a_named_postgres_is_reached_through_links(tmp_path: Path) -> None:
    url = f"{postgres_server.shared_url()}&schema=stem_chaos_cluster"
    with running_cluster(tmp_path, url, workers=1, concurrency=1) as cluster:
        assert cluster.server is None
        assert cluster.url.startswith("postgres://127.0.0.1:")
        assert cluster.url.endswith("/postgres?user=postgres&schema=stem_chaos_cluster")
        assert len(cluster.links) == 2
        await_results(enqueue(cluster, 5))


@pytest.mark.parametrize(
    ("url", "target", "through"),
    [
        (
            "postgres://a:b@db:7/app?sslmode=disable&schema=s",
            ("db", 7),
            "postgres://a:b@127.0.0.1:1/app?sslmode=disable&schema=s",
        ),
        ("postgresql://db/app", ("db", 5432), "postgresql://127.0.0.1:1/app"),
        ("postgres:///app?host=/run/pg&port=7", "/run/pg/.s.PGSQL.7", "postgres://127.0.0.1:1/app"),
        ("redis://:p@cache/3?a=b", ("cache", 6379), "redis://:p@127.0.0.1:1/3?a=b"),
        ("unix:///run/redis?db=2&a=b", "/run/redis", "redis://127.0.0.1:1/2?a=b"),
    ],
)
def test_a_proxy_stands_in_the_way_that_a_url_names(url: str, target: object, through: str) -> None:
    route = route_of(url)
    assert route is not None
    assert (route.target, route.through(1)) == (target, through)


@pytest.mark.parametrize(
    "url", ["rediss://cache/0", "postgres://db/app?sslmode=verify-full", "postgres://a,b/app", "postgres:///app", "sqlite:///x"]
)
def test_where_no_proxy_can_stand_there_is_none(url: str) -> None:
    assert route_of(url) is None


def test_a_stepped_clock_hides_no_sitecustomize_of_the_host(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.theirs_was_loaded = True")
    clock = SteppedClock(tmp_path / "clock")
    clock.step(-1000.0)
    words = [sys.executable, "-c", "import time; print(theirs_was_loaded, time.time(), time.monotonic())"]
    said = subprocess.run(words, env=clock.environment({"PYTHONPATH": str(theirs)}), capture_output=True, text=True, check=True)
    loaded, wall, monotonic = said.stdout.split()
    assert loaded == "True"
    assert float(wall) == pytest.approx(time.time() - 1000.0, abs=60.0)
    assert float(monotonic) == pytest.approx(time.monotonic(), abs=60.0)
