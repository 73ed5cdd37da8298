"""Postgres under faults: a real server of the test's own that is killed, filled, crowded, held up and lied to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from stem_actors import Stem
from stem_actors.adapters import open_stores
from stem_actors.adapters.postgres import floors, pace
from stem_actors.adapters.postgres.broker import PostgresBroker
from stem_actors.adapters.postgres.intake import PostgresIntake
from stem_actors.clock import SystemClock
from stem_actors.codecs.msgpack import encode_payload
from stem_actors.errors import BrokerUnavailable, ConfigError, StorageBroken, StorageFull
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, Retry
from stem_actors.model.record import Settlement
from stem_actors.ports import Broker, Done, Revocation, Stale, Stores
from stem_chaos.link import Proxy
from tests.contract.fabric import (
    PROMPTLY,
    counts,
    ids,
    meanwhile,
    message,
    publish,
    publish_at_last,
    record_of,
    results_of,
    settle,
    take,
    take_one,
    until_answered,
)
from tests.fixtures.postgres_server import PostgresServer, new_schema, own_server
from tests.integration.reads import READS, fill

T = TypeVar("T")

LONG = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def schema() -> str:
    return new_schema()


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[Stores]:
    stores = open_stores(url, clock=SystemClock(), **options)
    try:
        yield stores
    finally:
        stores.close()


@pytest.fixture
def url(server: PostgresServer, schema: str) -> str:
    return f"{server.url}&schema={schema}"


@pytest.fixture
def stores(url: str) -> Iterator[Stores]:
    with opened(url) as stores:
        yield stores


@pytest.fixture
def broker(stores: Stores) -> Broker:
    return stores.broker


def through(proxy: Proxy, schema: str) -> str:
    return f"postgres://postgres@127.0.0.1:{proxy.port}/postgres?schema={schema}"


# ---------------------------------------------------------------- the server goes and comes


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_restarts_keeps_tasks_leases_and_results(server: PostgresServer, stores: Stores, mode: str) -> None:
    broker = stores.broker
    publish(broker, "done", "held", "waiting", message("delayed", delay=60), message("dead", queue="dead"))
    settle(broker, take(broker, queues=["dead"])[0], DeadLetter("why"))
    done, held = take(broker, 2)
    settle(broker, done, record=record_of(done, payload=b"42"))
    publish(broker, "last")
    server.restart(mode)
    assert until_answered(lambda: broker.extend([held.lease]), BrokerUnavailable) == [Done()]
    assert (counts(broker), counts(broker, "dead")) == ((2, 1, 1, 0), (0, 0, 0, 1))
    record = results_of(stores).get("done")
    assert record is not None
    assert record.payload == b"42"
    assert settle(broker, held) == Done()
    assert ids(take(broker)) == ["waiting", "last"]


def test_what_was_handed_out_a_moment_before_a_crash_stays_leased(server: PostgresServer, broker: Broker) -> None:
    publish(broker, "a", "b")
    handout = take_one(broker)
    server.restart("immediate")
    assert ids(until_answered(lambda: take(broker), BrokerUnavailable)) == ["b"]
    assert settle(broker, handout) == Done()


def test_a_lease_that_a_crash_took_back_is_none_and_its_token_is_not_drawn_again(server: PostgresServer, broker: Broker) -> None:
    publish(broker, "a")
    lost = take_one(broker)
    server.execute(f'DELETE FROM "{broker._database.endpoint.schema}".leased')  # type: ignore[attr-defined]  # as if not on the disk
    publish(broker, "b")
    server.restart("immediate")
    other = until_answered(lambda: take(broker), BrokerUnavailable)[0]
    assert other.lease.token != lost.lease.token
    assert settle(broker, lost) == Stale()
    assert settle(broker, other) == Done()


def test_a_waiting_consumer_survives_a_restart_and_hears_of_work_afterwards(server: PostgresServer, url: str) -> None:
    with opened(url) as stores, opened(url) as other:
        intake = stores.broker.open_intake(["default"], "holder-1")
        with meanwhile(intake.receive, 10, LONG) as received:
            server.restart("immediate")
            with contextlib.suppress(BrokerUnavailable):  # it may not have looked while the server was away
                publish_at_last(other.broker, "a")
                handouts = received.result(LONG)
                assert ids(handouts) == ["a"]
                return
        assert ids(until_answered(lambda: intake.receive(10, 0.5), BrokerUnavailable)) == ["a"]


def test_a_server_that_is_away_is_unavailable_at_once_and_named() -> None:
    start = time.monotonic()
    with opened("postgres://user:secret@127.0.0.1:1/app") as stores, pytest.raises(BrokerUnavailable) as caught:
        publish(stores.broker, "a")
    assert "postgres://127.0.0.1:1/app" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert time.monotonic() - start < 5


def test_a_wrong_user_or_database_is_the_operators_business(server: PostgresServer) -> None:
    for place, said in (("nobody:secret@127.0.0.1:{}/postgres", "Check the user"), ("postgres@127.0.0.1:{}/none", "createdb")):
        with opened(f"postgres://{place.format(server.port)}") as stores:
            with pytest.raises(StorageBroken, match=said) as caught:
                publish(stores.broker, "a")
            assert "secret" not in str(caught.value)
    with opened(f"{server.url}&no_such_option=1") as stores, pytest.raises(ConfigError, match="no_such_option"):
        publish(stores.broker, "a")


# ---------------------------------------------------------------- connections


def test_connections_that_are_terminated_again_and_again_cost_errors_and_no_task(
    server: PostgresServer, broker: Broker, url: str
) -> None:
    tasks, over = 300, threading.Event()
    seen: Counter[str] = Counter()
    publish(broker)  # which makes the schema

    def terminate() -> None:
        while not over.wait(0.2):
            cut(server, f"stem-{os.getpid()}%")

    def produce() -> None:
        for number in range(tasks):
            batch = [message(f"task-{number}")]
            until_answered(partial(done, broker.publish, "sender", number + 1, batch), BrokerUnavailable)

    def consume(holder: str) -> None:
        with opened(url) as stores:
            intake = until_answered(lambda: stores.broker.open_intake(["default"], holder), BrokerUnavailable)
            deadline = time.monotonic() + 2 * LONG
            while time.monotonic() < deadline and not (producing.done() and over.is_set()):
                with contextlib.suppress(BrokerUnavailable):
                    handouts = intake.receive(16, 0.05) or stores.broker.held(holder)  # whose hand-out was not heard of
                    seen.update(ids(handouts))
                    stores.broker.settle([Settlement(each.lease, Ack()) for each in handouts])
                    if producing.done() and not stores.broker.depths():
                        over.set()

    with ThreadPoolExecutor(4) as pool:
        producing = pool.submit(produce)
        futures = [producing, pool.submit(terminate), *(pool.submit(consume, f"holder-{number}") for number in range(2))]
        try:
            for future in futures[2:]:
                future.result(3 * LONG)
        finally:
            over.set()
        for future in futures:
            future.result(LONG)
    assert len(seen) == tasks
    assert until_answered(lambda: done(broker.depths), BrokerUnavailable)
    assert broker.depths() == []


def done(action: Callable[..., object], *arguments: Any) -> bool:
    """That nothing was raised."""
    action(*arguments)
    return True


def cut(server: PostgresServer, name: str) -> list[Any]:
    """Terminate the connections that call themselves so; those that there were."""
    return server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s AND pid <> pg_backend_pid()",
        (name,),
    )


def test_a_listener_whose_connection_is_cut_finds_its_work_all_the_same(server: PostgresServer, stores: Stores, url: str) -> None:
    intake = stores.broker.open_intake(["default"], "holder-1")
    assert intake.receive(10, 0.01) == []
    with opened(url) as other:
        for number in range(10):
            with meanwhile(intake.receive, 10, LONG) as received:
                until_answered(lambda: cut_listeners(server))
                publish(other.broker, f"task-{number}")
                assert ids(received.result(PROMPTLY)) == [f"task-{number}"]


def cut_listeners(server: PostgresServer) -> list[Any]:
    return cut(server, f"stem-{os.getpid()}-hints")


def test_who_waits_without_hints_is_told_again_once_they_are_back(server: PostgresServer, stores: Stores, url: str) -> None:
    intake = stores.broker.open_intake(["default"], "holder-1")
    assert intake.receive(10, 0.01) == []
    until_answered(lambda: cut_listeners(server))
    until_answered(lambda: listeners(server))
    with opened(url) as other, meanwhile(intake.receive, 10, LONG) as received:
        publish(other.broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]


def listeners(server: PostgresServer) -> list[Any]:
    return server.execute("SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND state = 'idle'", ("LISTEN%",))


def test_polling_alone_finds_everything(server: PostgresServer, url: str) -> None:
    with opened(f"{url}&poll_only=true&poll_interval=50ms") as stores, opened(f"{url}&poll_only=true") as other:
        intake = stores.broker.open_intake(["default"], "holder-1")
        with meanwhile(intake.receive, 10, LONG) as received:
            publish(other.broker, "a")
            assert ids(received.result(PROMPTLY)) == ["a"]
        assert listeners(server) == []
        cursor = stores.control.cursor(["all"])
        with meanwhile(stores.control.pull, ["all"], cursor, 100, LONG) as pulled:
            other.control.send("all", b"1", 60)
            assert pulled.result(PROMPTLY)[0] == [b"1"]


@pytest.mark.parametrize("name", READS)
def test_a_read_whose_connection_is_lost_under_it_is_asked_again(server: PostgresServer, stores: Stores, name: str) -> None:
    fill(stores)
    before = READS[name](stores)
    assert before
    assert losing_connections(server, stores, READS[name]) == before


def losing_connections(server: PostgresServer, stores: Stores, read: Callable[[Stores], T]) -> T:
    """What a read comes to whose connection is terminated between its question and the answer."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    alive = "SELECT pid FROM pg_stat_activity WHERE pid = %s"
    with psycopg.connect(server.url) as holding, meanwhile_locked(holding, stores, read) as asked:
        ((pid,),) = until_answered(lambda: server.execute(waiting, (f"stem-{os.getpid()}",)))
        cut(server, f"stem-{os.getpid()}%")
        until_answered(lambda: not server.execute(alive, (pid,)))
        holding.rollback()
        return asked.result(PROMPTLY)


@contextlib.contextmanager
def meanwhile_locked(holding: Any, stores: Stores, read: Callable[[Stores], T]) -> Iterator[Future[T]]:
    """Read in another thread, which is told nothing before `holding` ends its transaction."""
    assert isinstance(stores.broker, PostgresBroker)
    schema = stores.broker._database.endpoint.schema
    found = holding.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,)).fetchall()
    tables = ", ".join(f'"{schema}"."{table}"' for (table,) in found if table != "migration")
    holding.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
    with meanwhile(read, stores) as asked:
        try:
            yield asked
        finally:
            holding.rollback()


@pytest.mark.parametrize("name", READS)
def test_reads_after_idle_connections_were_terminated_are_answered(server: PostgresServer, stores: Stores, name: str) -> None:
    fill(stores)
    before = READS[name](stores)
    cut(server, f"stem-{os.getpid()}%")
    assert READS[name](stores) == before


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_handle_gives_its_result_after_a_restart(server: PostgresServer, url: str, mode: str) -> None:
    with Stem(url) as app:
        fill(app.stores)
        handle = app.handle("done")
        server.restart(mode)
        assert handle.status().state is TaskState.SUCCEEDED
        server.restart(mode)
        assert handle.get(PROMPTLY) == 42


def test_a_handle_gives_its_result_although_connections_are_terminated(server: PostgresServer, url: str) -> None:
    with Stem(url) as app:
        fill(app.stores)
        handle = app.handle("done")
        for _ in range(20):
            cut(server, f"stem-{os.getpid()}%")
            assert handle.status().state is TaskState.SUCCEEDED
            cut(server, f"stem-{os.getpid()}%")
            assert handle.get(PROMPTLY) == 42


def test_a_handle_that_waits_while_connections_are_terminated_gets_its_result(server: PostgresServer, url: str) -> None:
    with Stem(url) as app, opened(url) as other:
        publish(other.broker, "a")
        record = record_of(take_one(other.broker), payload=encode_payload(42))
        with meanwhile(app.handle("a").get, LONG) as got:
            gone: set[int] = set()
            for _ in range(5):
                gone.update(until_answered(lambda: waiting_connections(server, gone)))
                cut(server, f"stem-{os.getpid()}%")
            until_answered(lambda: results_of(other).set_many([record]), BrokerUnavailable)
            assert got.result(PROMPTLY) == 42


def waiting_connections(server: PostgresServer, gone: Collection[int]) -> list[int]:
    """Both that one has who waits for a result: one listens, with the other he has looked. None until there are both anew."""
    ours = "SELECT query, pid FROM pg_stat_activity WHERE application_name LIKE %s AND state = 'idle'"
    found = [row for row in server.execute(ours, (f"stem-{os.getpid()}%",)) if row[1] not in gone]
    listening = [pid for query, pid in found if query.startswith("LISTEN")]
    looking = [pid for query, pid in found if "finality = $" in query]
    return listening + looking if listening and looking else []


def test_a_publication_whose_answer_was_lost_is_stored_once_when_repeated(server: PostgresServer, schema: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema)) as stores, impatient():
        publish(stores.broker, "first")
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            stores.broker.publish("sender", 1, [message("a"), message("b", delay=60)])
        proxy.heal()
        batch = [message("a"), message("b", delay=60)]
        assert until_answered(lambda: done(stores.broker.publish, "sender", 1, batch), BrokerUnavailable)
        assert counts(stores.broker) == (2, 0, 1, 0)


def test_a_settlement_whose_answer_was_lost_is_stale_when_repeated_and_has_happened_once(
    server: PostgresServer, schema: str
) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema)) as stores, impatient():
        publish(stores.broker, "a", "b")
        settlements = [Settlement(each.lease, Retry(0), each.state) for each in take(stores.broker)]
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            stores.broker.settle(settlements)
        proxy.heal()
        assert until_answered(lambda: stores.broker.settle(settlements), BrokerUnavailable) == [Stale(), Stale()]
        assert counts(stores.broker) == (2, 0, 0, 0)


def test_leases_of_an_answer_that_was_lost_are_listed_as_held(server: PostgresServer, schema: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema)) as stores, impatient():
        publish(stores.broker, "a", "b")
        intake = stores.broker.open_intake(["default"], "holder-1")
        assert ids(intake.receive(1, 0)) == ["a"]
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            intake.receive(1, 0)
        proxy.heal()
        assert until_answered(lambda: ids(stores.broker.held("holder-1")) == ["a", "b"], BrokerUnavailable)
        assert intake.receive(10, 0) == []


def test_a_server_that_swallows_everything_is_given_up_within_its_timeout(server: PostgresServer, schema: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema)) as stores, impatient():
        publish(stores.broker, "a")
        held = take_one(stores.broker)
        proxy.blackhole()
        with pytest.raises(BrokerUnavailable, match="no answer within"):
            stores.broker.extend([held.lease])
        proxy.heal()
        assert until_answered(lambda: stores.broker.extend([held.lease]), BrokerUnavailable) == [Done()]


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Give up soon on a server that does not answer."""
    from stem_actors.adapters.postgres.connection import connection_class

    kind = connection_class()
    before, kind.patience = kind.patience, 0.5
    try:
        yield
    finally:
        kind.patience = before


def test_a_read_of_a_server_that_is_out_of_reach_is_given_up_as_soon_as_a_write(server: PostgresServer, schema: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema)) as stores, impatient():
        assert stores.broker.depths() == []
        for fault, said in ((proxy.cut, "does not answer"), (proxy.blackhole, "no answer within")):
            fault()
            start = time.monotonic()
            with pytest.raises(BrokerUnavailable, match=said):
                stores.broker.depths()
            assert time.monotonic() - start < 2
            proxy.heal()
            until_answered(lambda: done(stores.broker.depths), BrokerUnavailable)


def test_an_interrupt_ends_a_wait_although_the_server_is_out_of_reach(server: PostgresServer, schema: str) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(through(proxy, schema) + "&poll_interval=60s") as stores, impatient():
        intake = stores.broker.open_intake(["default"], "holder-1")
        with meanwhile(intake.receive, 10, LONG) as received:
            until_answered(lambda: intake._ear._changed._waiters)  # type: ignore[attr-defined]  # it has looked, and waits
            proxy.blackhole()
            intake.interrupt()
            assert received.result(PROMPTLY) == []
        proxy.heal()


# ---------------------------------------------------------------- what others do to the server


def test_a_crowd_of_idle_connections_holds_nothing_up() -> None:
    with own_server("max_connections=320") as server, contextlib.ExitStack() as crowd, opened(server.url) as stores:
        for _ in range(300):
            crowd.enter_context(psycopg.connect(server.url, autocommit=True)).execute("SELECT 1")
        publish(stores.broker, *(f"task-{number}" for number in range(100)))
        handouts = take(stores.broker)
        assert stores.broker.settle([Settlement(each.lease, Ack()) for each in handouts]) == [Done()] * 100


def test_a_server_without_a_connection_left_is_unavailable_with_the_remedy_and_used_again_when_it_has_one() -> None:
    few = ("max_connections=20", "superuser_reserved_connections=0")
    with own_server(*few) as server, contextlib.ExitStack() as crowd, opened(server.url) as stores:
        for _ in range(20):
            crowd.enter_context(psycopg.connect(server.url, autocommit=True)).execute("SELECT 1")
        with pytest.raises(BrokerUnavailable, match="max_connections"):
            publish(stores.broker, "a")
        crowd.close()
        publish_at_last(stores.broker, "a")
        assert ids(take(stores.broker)) == ["a"]


def test_a_transaction_that_stays_open_holds_nothing_up(server: PostgresServer, broker: Broker, schema: str) -> None:
    publish(broker, "warm-up")
    settle(broker, take_one(broker))
    with psycopg.connect(server.url) as holding:
        holding.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holding.execute(f'SELECT count(*), pg_current_xact_id() FROM "{schema}".ready')  # nothing that dies now is cleared away
        for round_number in range(20):
            publish(broker, *(f"{round_number}-{number}" for number in range(1000)))
            while handouts := take(broker, 500):
                broker.settle([Settlement(each.lease, Ack()) for each in handouts])
        assert counts(broker) == (0, 0, 0, 0)
        assert not broker.sweep().skipped
        holding.rollback()


@pytest.mark.parametrize("share", [20, 500], ids=["cheap", "dear"])
def test_a_task_whose_transaction_took_long_is_found_although_others_have_passed_it(
    server: PostgresServer, broker: Broker, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    monkeypatch.setattr(floors, "MEASURE_EVERY", 0.02)
    monkeypatch.setattr(pace, "SHARE", share)  # "dear": what takes milliseconds is done every second, as with many dead rows
    intake = broker.open_intake(["default"], "holder-1")
    assert isinstance(broker, PostgresBroker)
    assert isinstance(intake, PostgresIntake)
    (floor_of,) = intake._floors.values()
    with psycopg.connect(server.url) as connection:
        broker.publish_within(connection, [message("late")])
        number = int(server.execute(f'SELECT last_value FROM "{broker._database.endpoint.schema}".number')[0][0])

        def has_passed() -> bool:
            publish(broker, "other")
            assert settle(broker, intake.receive(1, LONG)[0]) == Done()
            return max(floor_of.in_use()) > number

        until_answered(has_passed)
        connection.commit()
        assert ids(until_answered(lambda: intake.receive(10, 0.01), timeout=LONG)) == ["late"]


@pytest.mark.skipif(os.geteuid() != 0, reason="to make a disk that is full takes root")
def test_a_full_disk_refuses_tasks_with_a_remedy_and_is_used_again_when_there_is_room() -> None:
    folder = Path(tempfile.mkdtemp(prefix="stem-postgres-"))
    log = Path(tempfile.mkdtemp(prefix="stem-postgres-wal-"))
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", folder], check=False).returncode:
            pytest.skip("no disk can be made here")
        with own_server("autovacuum=off", folder=folder, log_folder=log) as server, opened(server.url) as stores:
            publish(stores.broker, "first")
            held = take_one(stores.broker)
            ballast = folder / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb") as file:
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()
            with pytest.raises(StorageFull, match="disk is full"):
                for number in range(2000):
                    publish(stores.broker, *(message(f"{number}-{each}", body=b"x" * 1000) for each in range(20)))
            assert settle(stores.broker, held) == Done()
            ballast.unlink()
            publish(stores.broker, "second")
            assert "second" in ids(take(stores.broker, 100_000))
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(log, ignore_errors=True)


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_serialization_failures_are_repeated_and_nobody_notices(server: PostgresServer, url: str, level: str) -> None:
    tasks = 300
    server.execute(f"CREATE ROLE strict LOGIN SUPERUSER; ALTER ROLE strict SET default_transaction_isolation = '{level}'")
    strict = url.replace("user=postgres", "user=strict")
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def produce(name: str) -> None:
        with opened(strict) as stores:
            for number in range(0, tasks, 10):
                publish(stores.broker, *(f"{name}-{each}" for each in range(number, number + 10)))

    def consume(holder: str) -> None:
        with opened(strict) as stores:
            intake = stores.broker.open_intake(["default"], holder)
            deadline = time.monotonic() + LONG
            while seen.total() < 2 * tasks and time.monotonic() < deadline:
                handouts = intake.receive(8, 0.05)
                settlements = [Settlement(each.lease, Ack(), None, record_of(each)) for each in handouts]
                assert stores.broker.settle(settlements) == [Done()] * len(handouts)
                stores.broker.sweep()
                with lock:
                    seen.update(ids(handouts))

    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(produce, name) for name in "ab"] + [pool.submit(consume, f"holder-{each}") for each in "cd"]
            for future in futures:
                future.result(2 * LONG)
        assert len(seen) == 2 * tasks
        assert set(seen.values()) == {1}
    finally:
        server.execute("DROP OWNED BY strict")
        server.execute("DROP ROLE strict")


def test_a_read_only_server_is_unavailable_until_it_is_the_primary(server: PostgresServer, broker: Broker) -> None:
    publish(broker, "a")
    held = take_one(broker)
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    try:
        with pytest.raises(BrokerUnavailable, match="primary"):
            while True:  # until the server has read its configuration
                publish(broker, "b")
    finally:
        with psycopg.connect(server.url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    publish_at_last(broker, "c")
    assert settle(broker, held) == Done()


def test_a_schema_that_is_dropped_under_workers_is_the_operators_business(
    server: PostgresServer, broker: Broker, schema: str
) -> None:
    publish(broker, "a")
    server.execute(f'DROP SCHEMA "{schema}" CASCADE')
    with pytest.raises(StorageBroken, match="stem db"):
        publish(broker, "b")


# ---------------------------------------------------------------- versions that appear out of order


def test_revocations_stored_at_the_same_time_are_all_read_by_who_follows(url: str) -> None:
    writers, each_writes = 4, 25

    def revoke(name: int, stores: Stores) -> None:
        for number in range(each_writes):
            stores.revocations.upsert_all([Revocation(f"{name}-{number}")])

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(writers) as pool:
        opened_by = [stack.enter_context(opened(url)) for _ in range(writers)]
        reader = stack.enter_context(opened(url)).revocations
        reader.list_since()
        futures = [pool.submit(revoke, name, stores) for name, stores in enumerate(opened_by)]
        version = 0
        found: set[str] = set()
        deadline = time.monotonic() + LONG
        while len(found) < writers * each_writes and time.monotonic() < deadline:
            for revocation in reader.list_since(version):
                version = revocation.version
                found.add(revocation.task_id)
        for future in futures:
            future.result(LONG)
    assert len(found) == writers * each_writes
