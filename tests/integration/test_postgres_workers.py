"""Workers on Postgres while their server, or the way to it, fails: nothing is lost, and the worker goes on by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from stem_actors import Handle, TaskState
from stem_actors.errors import BrokerUnavailable
from stem_chaos.link import Proxy, free_port
from tests.fixtures.fleet import Fleet, ProcessWorker
from tests.fixtures.outages import LONG, all_run, result_of
from tests.fixtures.postgres_server import PostgresServer, new_schema, own_server
from tests.fixtures.waiting import SOON, Journal, until

TASKS = 300


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return new_schema()


@pytest.fixture
def fleet(server: PostgresServer, schema: str, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "postgres", broker_url=f"{server.tcp_url}?schema={schema}", visibility_timeout=3.0)
    yield fleet
    fleet.close()


def has_recovered(worker: ProcessWorker) -> None:
    """It is ready, and an outage was a state to it and no crash."""
    until(lambda: not worker.reports.reasons, LONG, "ready again")
    assert worker.process.poll() is None
    assert worker.reports.counters["stem_actor_restarts_total"] == 0


@pytest.mark.timeout(150)
def test_five_immediate_restarts_under_load_cost_no_task(
    fleet: Fleet, server: PostgresServer, schema: str, journal: Journal
) -> None:
    worker = fleet.start_process()
    ends = Ends(server, schema)
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(keep_supplied, fleet, worker, journal, over)
        try:
            for _ in range(5):
                run_before = len(journal.lines())
                until(lambda before=run_before: len(journal.lines()) >= before + 50, LONG, "tasks run")  # type: ignore[misc]
                server.restart("immediate")
        finally:
            over.set()
        handles = producing.result(LONG)
    assert {word: result_of(handle) for word, handle in handles.items()} == {word: word for word in handles}
    assert {handle.status().attempt for handle in handles.values()} == {0}
    assert set(journal.words()) >= set(handles)
    ended = ends.counted()
    assert ended.keys() >= {handle.id for handle in handles.values()}
    assert set(ended.values()) == {1}
    assert fleet.dead_letters() == {}
    has_recovered(worker)


def keep_supplied(fleet: Fleet, worker: ProcessWorker, journal: Journal, over: threading.Event) -> dict[str, Handle[str]]:
    """Enqueue one by one until it is over, some way ahead of the worker; the handles by the words that the tasks write."""
    handles: dict[str, Handle[str]] = {}
    for number in count():
        until(lambda: over.is_set() or len(handles) < worker.reports.counters["stem_tasks_succeeded_total"] + 400, 2 * LONG)
        if over.is_set():
            break
        with suppress(BrokerUnavailable):  # for longer than the client's patience: then nobody promised anything
            handles[f"w{number}"] = fleet.enqueue("short", journal.path, f"w{number}")
    return handles


class Ends:
    """Which tasks ended, as the server itself notes it in the step that stores a final record."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        self._server = server
        self._table = f'"{schema}".ends'
        server.execute(
            f"""
            CREATE TABLE {self._table} (id text NOT NULL);
            CREATE FUNCTION {self._table}() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN INSERT INTO {self._table} VALUES (NEW.id); RETURN NULL; END $$;
            CREATE TRIGGER ends AFTER INSERT OR UPDATE ON "{schema}".result
                FOR EACH ROW WHEN (NEW.finality >= {TaskState.SUCCEEDED.finality}) EXECUTE FUNCTION {self._table}();
            """
        )

    def counted(self) -> dict[str, int]:
        """How often each ended."""
        return dict(self._server.execute(f"SELECT id, count(*) FROM {self._table} GROUP BY id"))


def test_a_server_that_is_away_for_longer_than_a_lease_does_not_interrupt_what_runs(
    fleet: Fleet, server: PostgresServer, journal: Journal
) -> None:
    worker = fleet.start_process()
    handle = fleet.enqueue("nap", journal.path, "x", 6.0)
    journal.wait_for("x-starts")
    server.stop()
    until(lambda: any("unreachable" in reason for reason in worker.reports.reasons), what="the worker has noticed")
    start = time.monotonic()
    until(lambda: time.monotonic() > start + 3.5)
    server.start()
    assert result_of(handle)
    assert journal.words() == {"x-starts": 1, "x": 1}
    has_recovered(worker)


def test_connections_terminated_under_load_cost_no_task(fleet: Fleet, server: PostgresServer, journal: Journal) -> None:
    worker = fleet.start_process()

    def terminate() -> None:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", (f"stem-{worker.pid}%",)
        )

    all_run(fleet, journal, TASKS, *[terminate] * 8)
    has_recovered(worker)


def test_a_server_that_is_frozen_for_a_while_costs_no_task(fleet: Fleet, server: PostgresServer, journal: Journal) -> None:
    worker = fleet.start_process()

    def freeze() -> None:
        server.signal(signal.SIGSTOP)
        try:
            start = time.monotonic()
            until(lambda: time.monotonic() > start + 2.0)
        finally:
            server.signal(signal.SIGCONT)

    all_run(fleet, journal, TASKS, freeze)
    has_recovered(worker)


def test_three_resets_within_two_seconds_cost_no_task(
    fleet: Fleet, server: PostgresServer, schema: str, journal: Journal
) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        worker = fleet.start_process(broker_url=f"postgres://postgres@127.0.0.1:{proxy.port}/postgres?schema={schema}")

        def reset_thrice() -> None:
            for _ in range(3):
                proxy.reset()
                threading.Event().wait(0.6)

        all_run(fleet, journal, TASKS, reset_thrice)
        has_recovered(worker)


def test_a_worker_stopped_for_two_leases_is_refused_and_the_other_ones_result_stands(fleet: Fleet, journal: Journal) -> None:
    fleet.set(visibility_timeout=1.0)
    stopped = fleet.start_process(concurrency=1)
    handle = fleet.enqueue("nap", journal.path, "x", 1.5)
    journal.wait_for("x-starts")
    stopped.send(signal.SIGSTOP)
    try:
        start = time.monotonic()
        other = fleet.start_process(concurrency=1)
        journal.wait_for("x-starts", LONG, times=2)
        until(lambda: time.monotonic() > start + 2.0)
    finally:
        stopped.send(signal.SIGCONT)
    handle.get(LONG)
    record = handle.status()
    assert (record.state, record.delivery_count) == (TaskState.SUCCEEDED, 2)
    assert record.meta["worker"].startswith(other.name)
    until(
        lambda: stopped.reports.counters["stem_leases_lost_total"] + stopped.reports.counters["stem_results_stale_total"],
        what="the refusal is counted",
    )
    has_recovered(stopped)


# ---------------------------------------------------------------- a pooler in between


@contextmanager
def pooler(server: PostgresServer, folder: Path) -> Iterator[int]:
    """PgBouncer in transaction mode, with fewer connections than it is asked for; its port."""
    program = shutil.which("pgbouncer", path=os.pathsep.join(["/usr/sbin", os.environ.get("PATH", "")]))
    if program is None:
        pytest.skip("no pgbouncer: apt install pgbouncer")
    port = free_port()
    folder.mkdir()
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.folder} port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = any\nauth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = 3\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    user = ["-u", "postgres"] if os.geteuid() == 0 else []
    for each in (folder, *folder.iterdir()):
        each.chmod(0o755)
    for parent in folder.parents:
        if parent.is_relative_to("/tmp/") and os.geteuid() == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    process = subprocess.Popen(
        [program, *user, folder / "pgbouncer.ini"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SOON)


def test_workers_behind_pgbouncer_in_transaction_mode_poll_and_lose_nothing(
    fleet: Fleet, server: PostgresServer, schema: str, journal: Journal, tmp_path: Path
) -> None:
    with pooler(server, tmp_path / "pooler") as port:
        url = f"postgres://postgres@127.0.0.1:{port}/postgres?schema={schema}&poll_only=true&poll_interval=100ms"
        fleet.set(broker_url=url)
        worker = fleet.start_process()
        all_run(fleet, journal, TASKS)
        has_recovered(worker)
        assert fleet.enqueue("echo", 1, countdown=0.5).get(SOON) == 1
        fleet.close()
