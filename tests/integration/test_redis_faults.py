"""Redis under faults: a real server of the test's own that is killed, emptied, filled, locked and lied to."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Stem
from stem_actors.adapters import open_stores
from stem_actors.adapters.redis.broker import RedisBroker
from stem_actors.clock import SystemClock
from stem_actors.codecs.msgpack import encode_payload
from stem_actors.errors import BrokerUnavailable, OperatorError, ResultTimeout, StorageBroken, StorageFull
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, Release, Retry, Verdict
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
from tests.fixtures.redis_server import RedisServer, own_server
from tests.integration.reads import READS, fill

LONG = 30.0
HOW_TO = Path(__file__).parents[2] / "docs/how-to/redis.md"
AOF = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """For faults that leave a server as it was."""
    with own_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.command("FLUSHALL")
    shared.command("SCRIPT", "FLUSH")
    return shared


@contextlib.contextmanager
def opened(url: str, **options: Any) -> Iterator[Stores]:
    stores = open_stores(url, clock=SystemClock(), **options)
    try:
        yield stores
    finally:
        stores.close()


@pytest.fixture
def stores(server: RedisServer) -> Iterator[Stores]:
    with opened(server.url) as stores:
        yield stores


@pytest.fixture
def broker(stores: Stores) -> Broker:
    return stores.broker


# ---------------------------------------------------------------- the server goes and comes


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_killed_keeps_tasks_leases_and_results_in_its_log(how: signal.Signals) -> None:
    with own_server(*AOF) as server, opened(server.url) as stores:
        broker = stores.broker
        publish(broker, "done", "held", "waiting", message("delayed", delay=60), message("dead", queue="dead"))
        settle(broker, take(broker, queues=["dead"])[0], DeadLetter("why"))
        done, held = take(broker, 2)
        settle(broker, done, record=record_of(done, payload=b"42"))
        publish(broker, "last")
        until_answered(lambda: server.command("INFO", "persistence")["aof_buffer_length"] == 0)  # written, if not to the disk
        server.kill(how)
        with pytest.raises(BrokerUnavailable):
            broker.extend([held.lease])
        server.start()
        assert until_answered(lambda: broker.extend([held.lease]), BrokerUnavailable) == [Done()]
        assert (counts(broker), counts(broker, "dead")) == ((2, 1, 1, 0), (0, 0, 0, 1))
        record = results_of(stores).get("done")
        assert record is not None
        assert record.payload == b"42"
        assert settle(broker, held) == Done()
        assert ids(take(broker)) == ["waiting", "last"]


def test_a_waiting_consumer_survives_a_restart_and_hears_of_work_afterwards() -> None:
    with own_server(*AOF) as server, opened(server.url) as stores, opened(server.url) as other:
        intake = stores.broker.open_intake(["default"], "holder-1")
        with meanwhile(intake.receive, 10, LONG) as received:
            until_answered(lambda: server.command("EXISTS", "stem:{default}:waiters"))
            server.kill()
            with pytest.raises(BrokerUnavailable):
                received.result(PROMPTLY)
        server.start()
        publish(other.broker, "a")
        assert ids(until_answered(lambda: intake.receive(10, 0.5), BrokerUnavailable)) == ["a"]


def test_a_server_that_is_away_is_unavailable_at_once_and_named() -> None:
    with opened("redis://user:secret@127.0.0.1:1/0") as stores, pytest.raises(BrokerUnavailable) as caught:
        publish(stores.broker, "a")
    assert "redis://127.0.0.1:1/0" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_reads_its_data_is_unavailable_for_now() -> None:
    with own_server("--enable-debug-command", "yes") as server, opened(server.url) as stores:
        publish(stores.broker, "a")
        for number in range(60):
            server.command("SET", f"filling-{number}", b"x" * 2000)
        server.command("CONFIG", "SET", "key-load-delay", "20000", "loading-process-events-interval-bytes", "1024")
        with meanwhile(server.command, "DEBUG", "RELOAD") as reloaded:
            with pytest.raises(BrokerUnavailable, match="reads its data"):
                while not reloaded.done():
                    publish(stores.broker, "b")
            reloaded.result(LONG)
        assert "a" in ids(until_answered(lambda: take(stores.broker), BrokerUnavailable))


# ---------------------------------------------------------------- connections


def test_killed_connections_are_made_anew(server: RedisServer, stores: Stores) -> None:
    broker = stores.broker
    intake = broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, LONG) as received:
        until_answered(lambda: server.command("EXISTS", "stem:{default}:waiters"))
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(BrokerUnavailable):
            received.result(PROMPTLY)
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    publish_at_last(broker, "a")
    assert ids(until_answered(lambda: intake.receive(10, 1), BrokerUnavailable)) == ["a"]


@pytest.mark.parametrize("name", READS)
def test_a_read_whose_connection_was_killed_is_asked_again(server: RedisServer, stores: Stores, name: str) -> None:
    fill(stores)
    before = READS[name](stores)
    assert before
    kill_connections(server)
    assert READS[name](stores) == before


def kill_connections(server: RedisServer) -> None:
    """All. Those that listen come last: they are made anew at once."""
    for kind in ("normal", "pubsub"):
        server.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def test_a_read_is_asked_again_on_a_new_connection_and_not_on_another_dead_one(server: RedisServer, stores: Stores) -> None:
    assert isinstance(stores.broker, RedisBroker)
    connections = stores.broker._server
    for each in [connections._take() for _ in range(3)]:
        connections._give_back(each)
    kill_connections(server)
    assert stores.broker.depths() == []


def test_a_handle_gives_its_result_although_connections_are_killed(server: RedisServer) -> None:
    with Stem(server.url) as app:
        fill(app.stores)
        handle = app.handle("done")
        for _ in range(20):
            kill_connections(server)
            assert handle.status().state is TaskState.SUCCEEDED
            kill_connections(server)
            assert handle.get(PROMPTLY) == 42


def test_a_handle_whose_last_wait_ended_before_connections_were_killed_waits_again(server: RedisServer) -> None:
    with Stem(server.url) as app, opened(server.url) as other:
        publish(other.broker, "a")
        record = record_of(take_one(other.broker), payload=encode_payload(42))
        with pytest.raises(ResultTimeout):
            app.handle("a").get(0.01)
        kill_connections(server)
        with pytest.raises(ResultTimeout):
            app.handle("a").get(0.01)
        kill_connections(server)
        with meanwhile(app.handle("a").get, LONG) as got:
            until_answered(lambda: is_waited_for(server, "a"))
            until_answered(lambda: results_of(other).set_many([record]), BrokerUnavailable)
            assert got.result(PROMPTLY) == 42


def test_a_handle_that_waits_while_connections_are_killed_gets_its_result(server: RedisServer) -> None:
    with Stem(server.url) as app, opened(server.url) as other:
        publish(other.broker, "a")
        record = record_of(take_one(other.broker), payload=encode_payload(42))
        with meanwhile(app.handle("a").get, LONG) as got:
            for _ in range(5):
                until_answered(lambda: is_waited_for(server, "a"))
                kill_connections(server)
            until_answered(lambda: is_waited_for(server, "a"))
            until_answered(lambda: results_of(other).set_many([record]), BrokerUnavailable)
            assert got.result(PROMPTLY) == 42


def is_waited_for(server: RedisServer, task_id: str) -> bool:
    """Whether somebody listens for the end of a task, and has looked as well."""
    _, count = server.command("PUBSUB", "NUMSUB", f"stem:done:{task_id}")
    return count > 0 and b" cmd=mget " in server.command("CLIENT", "LIST", "TYPE", "normal")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_handle_gives_its_result_after_a_restart(how: signal.Signals) -> None:
    with own_server(*AOF) as server, Stem(server.url) as app:
        fill(app.stores)
        handle = app.handle("done")
        assert handle.get(PROMPTLY) == 42
        with pytest.raises(ResultTimeout):  # it keeps a subscription for the next one who waits
            app.handle("none").get(0.01)
        until_answered(lambda: server.command("INFO", "persistence")["aof_buffer_length"] == 0)
        for read in (handle.status, handle.get):
            before = read()
            server.kill(how)
            server.start()
            assert read() == before
        with pytest.raises(ResultTimeout):
            app.handle("none").get(0.01)


def test_a_consumer_that_waits_without_a_subscription_is_no_longer_woken_and_finds_its_work_all_the_same(
    server: RedisServer, stores: Stores
) -> None:
    intake = stores.broker.open_intake(["default"], "holder-1")
    assert intake.receive(10, 0.01) == []
    server.command("LPUSH", "stem:{default}:waiters", "stem:wake:somebody-dead")
    with meanwhile(intake.receive, 10, LONG) as received:
        publish(stores.broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]
    assert server.command("EXISTS", "stem:{default}:waiters") == 0


def test_a_publication_whose_answer_was_lost_is_stored_once_when_repeated(server: RedisServer) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        publish(stores.broker, "first")
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            stores.broker.publish("sender", 1, [message("a"), message("b", delay=60)])
        proxy.heal()
        stores.broker.publish("sender", 1, [message("a"), message("b", delay=60)])
        assert counts(stores.broker) == (2, 0, 1, 0)


def test_a_settlement_whose_answer_was_lost_is_stale_when_repeated_and_has_happened_once(server: RedisServer) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        publish(stores.broker, "known", "a", "b")
        settle(stores.broker, take_one(stores.broker))  # the server knows the script now
        settlements = [Settlement(each.lease, Retry(0)) for each in take(stores.broker)]
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            stores.broker.settle(settlements)
        proxy.heal()
        assert stores.broker.settle(settlements) == [Stale(), Stale()]
        assert counts(stores.broker) == (2, 0, 0, 0)


def test_leases_of_an_answer_that_was_lost_are_listed_as_held(server: RedisServer) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        publish(stores.broker, "a", "b")
        intake = stores.broker.open_intake(["default"], "holder-1")
        assert ids(intake.receive(1, 0)) == ["a"]
        proxy.drop_answers()
        with pytest.raises(BrokerUnavailable):
            intake.receive(1, 0)
        proxy.heal()
        assert ids(stores.broker.held("holder-1")) == ["a", "b"]
        assert intake.receive(10, 0) == []


def test_three_resets_in_a_row_cost_three_errors_and_no_task(server: RedisServer) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        intake = stores.broker.open_intake(["default"], "holder-1")
        for number in range(3):
            with meanwhile(intake.receive, 10, LONG) as received:
                until_answered(lambda: server.command("EXISTS", "stem:{default}:waiters"))
                proxy.reset()
                with pytest.raises(BrokerUnavailable):
                    received.result(PROMPTLY)
            publish_at_last(stores.broker, f"task-{number}")
            assert ids(until_answered(lambda: intake.receive(10, 1), BrokerUnavailable)) == [f"task-{number}"]


def test_a_server_that_swallows_everything_is_given_up_within_its_timeout(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stem_actors.adapters.redis.connection.ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr("stem_actors.adapters.redis.connection.CONNECT_TIMEOUT", 0.3)
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        publish(stores.broker, "a")
        held = take_one(stores.broker)
        proxy.blackhole()
        start = time.monotonic()
        for ask in (
            lambda: stores.broker.extend([held.lease]),
            lambda: stores.broker.sweep(),
            lambda: publish(stores.broker, "b"),
        ):
            with pytest.raises(BrokerUnavailable):
                ask()
        assert time.monotonic() - start < 5
        proxy.heal()
        assert until_answered(lambda: stores.broker.extend([held.lease]), BrokerUnavailable) == [Done()]


def test_a_read_of_a_server_that_is_out_of_reach_is_given_up_as_soon_as_a_write(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stem_actors.adapters.redis.connection.ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr("stem_actors.adapters.redis.connection.CONNECT_TIMEOUT", 1.0)
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        for fault in (proxy.cut, proxy.blackhole):
            assert counts(stores.broker) == (0, 0, 0, 0)
            fault()
            start = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                counts(stores.broker)
            assert time.monotonic() - start < 1.9, "it was asked twice"
            proxy.heal()


def test_an_interrupt_ends_a_wait_although_the_server_is_out_of_reach(server: RedisServer) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy, opened(f"redis://127.0.0.1:{proxy.port}/0") as stores:
        intake = stores.broker.open_intake(["default"], "holder-1")
        assert intake.receive(10, 0.01) == []
        proxy.blackhole()
        with meanwhile(intake.receive, 10, LONG) as received:
            intake.interrupt()
            assert received.result(1) == []
        proxy.heal()


# ---------------------------------------------------------------- what somebody does to the server


def test_scripts_that_were_flushed_are_loaded_again(server: RedisServer, broker: Broker) -> None:
    publish(broker, "a", "b")
    server.command("SCRIPT", "FLUSH")
    a, b = take(broker)
    server.command("SCRIPT", "FLUSH")
    assert broker.settle([Settlement(a.lease, Ack()), Settlement(b.lease, Release())]) == [Done(), Done()]
    server.command("SCRIPT", "FLUSH")
    assert broker.extend([take_one(broker).lease]) == [Done()]
    server.command("SCRIPT", "FLUSH")
    assert not broker.sweep().skipped


def test_a_server_that_is_emptied_under_a_waiting_consumer_goes_on(
    server: RedisServer, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stem_actors.adapters.redis.intake.LOOK_EVERY", 0.5)  # nobody knows whom to wake any more
    intake = stores.broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, LONG) as received:
        until_answered(lambda: server.command("EXISTS", "stem:{default}:waiters"))
        server.command("FLUSHALL")
        publish(stores.broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]
    server.command("FLUSHALL")
    assert stores.broker.held("holder-1") == []


def test_a_lease_from_before_the_server_was_emptied_is_stale(server: RedisServer, broker: Broker) -> None:
    publish(broker, "a")
    held = take_one(broker)
    server.command("FLUSHALL")
    publish(broker, "b")
    assert settle(broker, held) == Stale()
    assert broker.extend([held.lease]) == [Stale()]
    assert ids(take(broker)) == ["b"]


def test_a_group_that_was_destroyed_hands_out_again_and_refuses_the_old_leases(server: RedisServer, broker: Broker) -> None:
    publish(broker, "a", "b")
    held = take_one(broker)
    server.command("XGROUP", "DESTROY", "stem:{default}:p5", "stem")
    assert settle(broker, held) == Stale()
    assert ids(take(broker, holder="other")) == ["a", "b"]
    assert settle(broker, held) == Stale(), "the id is pending again, but for another"
    assert counts(broker) == (0, 2, 0, 0)


def test_a_replica_takes_nothing_and_says_so_until_it_is_promoted(server: RedisServer, broker: Broker) -> None:
    publish(broker, "a")
    held = take_one(broker)
    with own_server() as primary:
        server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
        server.command("REPLICAOF", "127.0.0.1", str(primary.port))
        try:
            with pytest.raises(BrokerUnavailable, match="replica"):
                publish(broker, "b")
        finally:
            server.command("REPLICAOF", "NO", "ONE")
    publish_at_last(broker, "b")
    assert settle(broker, held) in (Done(), Stale()), "it may have taken over what its primary did not have"
    assert "b" in ids(take(broker))


def test_a_full_server_refuses_tasks_with_a_remedy_and_goes_on_draining(server: RedisServer, stores: Stores) -> None:
    broker = stores.broker
    publish(broker, *(f"task-{number}" for number in range(20)), message("late", delay=0.05))
    held = take(broker, 5)
    server.command("CONFIG", "SET", "maxmemory", "1mb")
    try:
        with pytest.raises(StorageFull, match="maxmemory"):
            publish(broker, "refused")
        verdicts: list[Verdict] = [Ack(), Release(), Retry(0), DeadLetter("why"), Retry(60)]
        settlements = [
            Settlement(each.lease, verdict, None, record_of(each)) for each, verdict in zip(held, verdicts, strict=True)
        ]
        assert broker.settle(settlements) == [Done()] * 5
        rest = take(broker)
        assert len(rest) >= 17
        assert broker.extend([each.lease for each in rest]) == [Done()] * len(rest)
        assert not broker.sweep().skipped
        assert broker.settle([Settlement(each.lease, Ack()) for each in rest]) == [Done()] * len(rest)
    finally:
        server.command("CONFIG", "SET", "maxmemory", "0")
    publish(broker, "accepted")
    assert "accepted" in ids(take(broker))


def test_what_the_server_is_and_what_to_change_there_is_logged_at_connect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stem.redis")
    with own_server("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as server, opened(server.url) as stores:
        publish(stores.broker, "a")
        publish(stores.broker, "b")
    for said in (
        "persistence none or rdb",
        "eviction volatile-lru",
        "of memory left",
        "clock ",
        "set appendonly yes",
        "noeviction",
    ):
        assert caplog.text.count(said) == 1, said


def test_a_server_that_may_evict_tasks_is_refused_unless_that_is_accepted() -> None:
    with own_server("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        with opened(server.url) as stores, pytest.raises(OperatorError, match="noeviction"):
            publish(stores.broker, "a")
        with opened(f"{server.url}&accept_data_loss=true") as stores:
            publish(stores.broker, "a")


def test_a_wrong_password_is_the_operators_business_and_not_repeated_in_the_error() -> None:
    with own_server("--requirepass", "right") as server:
        for wrong, said in (("", "Give a password"), (":wrong-secret@", "Check user name and password"), ("nobody:x@", "Check")):
            with opened(f"redis://{wrong}127.0.0.1:{server.port}/0") as stores:
                with pytest.raises(StorageBroken, match=said) as caught:
                    publish(stores.broker, "a")
                assert "wrong-secret" not in str(caught.value)
        with opened(f"redis://:right@127.0.0.1:{server.port}/0") as stores:
            publish(stores.broker, "a")


def test_a_user_with_the_rights_that_the_documentation_names_can_do_everything(server: RedisServer) -> None:
    (rights,) = re.findall(r"ACL SETUSER stem on >PASSWORD (.*)", HOW_TO.read_text())
    server.command("ACL", "SETUSER", "stem", "reset", "on", ">right", *rights.split())
    try:
        with opened(f"redis://stem:right@127.0.0.1:{server.port}/0") as stores:
            server.command("SET", "stem:{default}:delayed", "to be put in quarantine")
            work_through(stores, server)
            use_all_stores(stores)
        with (
            opened(f"redis://stem:right@127.0.0.1:{server.port}/0", namespace="other") as stores,
            pytest.raises(StorageBroken, match="Give this user the rights"),
        ):
            publish(stores.broker, "a")
    finally:
        server.command("ACL", "DELUSER", "stem")


def test_all_keys_of_a_queue_share_one_hash_tag(server: RedisServer, stores: Stores) -> None:
    work_through(stores, server)
    publish(stores.broker, message("x", queue="od{d} name"), message("y", queue="od{d} name", delay=60.0))
    settle(stores.broker, take(stores.broker, queues=["od{d} name"])[0], DeadLetter("why"))
    tags = {re.search(rb"{([^}]*)}", key)[1] for key in server.command("KEYS", "*") if b"{" in key}  # type: ignore[index]
    assert tags == {b"default", b"od%7Bd%7D name"}


# ---------------------------------------------------------------- garbage


KINDS: dict[str, tuple[Any, ...]] = {
    "string": ("SET", "KEY", b"\xff garbage"),
    "list": ("RPUSH", "KEY", b"\xff garbage"),
    "hash": ("HSET", "KEY", b"\xff", b"garbage"),
    "zset": ("ZADD", "KEY", "1", b"\xff garbage"),
    "set": ("SADD", "KEY", b"\xff garbage"),
    "stream": ("XADD", "KEY", "*", b"\xff", b"garbage"),
}
READ_KEYS = ["meta", "p5", "b5", "delayed", "dead", "dead:tasks", "waiters"]


def work_through(stores: Stores, server: RedisServer) -> list[str]:
    """All that a worker and an operator do; the ids that were delivered."""
    broker = stores.broker
    publish(broker, "a", message("b", delay=0.001), message("c", is_chosen_id=True))
    seen: list[str] = []

    def drained() -> bool:
        broker.sweep()
        intake = broker.open_intake(["default"], "holder-1")
        handouts = intake.receive(100, 0.01)
        intake.close()
        broker.extend([each.lease for each in handouts])
        for each in handouts:
            verdict = Ack() if each.state is not None else DeadLetter("malformed")
            seen.append(each.id)
            assert settle(broker, each, verdict, record=record_of(each)) == Done()
        return {"a", "b", "c"} <= set(seen)

    until_answered(drained, BrokerUnavailable)
    broker.depths()
    broker.held("holder-1")
    broker.dead_letters("default")
    broker.replay_dead_letters("default", limit=1)
    broker.purge("default", dead_letters=True)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_and_wrong_types_in_any_key_of_a_queue_stop_no_consumer(server: RedisServer, kind: str) -> None:
    for suffix in READ_KEYS:
        server.command("FLUSHALL")
        key = f"stem:{{default}}:{suffix}"
        with opened(server.url) as stores:
            if suffix != "meta":
                publish(stores.broker, message("before", queue="default"))
            server.command("DEL", key)
            server.command(*(key if part == "KEY" else part for part in KINDS[kind]))
            work_through(stores, server)


NAMESPACE_KEYS = [
    *("queues", "names", "senders", "results", "result:a", "fences", "heartbeats", "lock:a"),
    *("control:number", "control:channels", "control:of:all"),
    *("revocations", "revocations:order", "revocations:ends", "revocations:version", "pauses"),
]


def use_all_stores(stores: Stores) -> None:
    """What a worker and an operator do beside moving tasks, seen to have worked."""
    record = results_of(stores).get("a")
    assert record is not None
    assert record.state is TaskState.SUCCEEDED
    results_of(stores).set_many([record])
    assert "a" in [each.id for each in results_of(stores).list_records().items]
    results_of(stores).purge_expired()

    cursor = stores.control.cursor(["all"])
    stores.control.send("all", b"1", 60)
    assert stores.control.pull(["all"], cursor)[0] == [b"1"]

    (revoked,) = stores.revocations.upsert_all([Revocation("a", issued_at=time.time(), expires_at=time.time() + 60)])
    assert revoked in stores.revocations.list_since()
    stores.revocations.prune_expired()

    stores.pauses.pause(["a"], "a test")
    assert ("a", "a test") in [(each.queue, each.reason) for each in stores.pauses.paused()]
    stores.pauses.resume(["a"])
    assert "a" not in [each.queue for each in stores.pauses.paused()]

    stores.heartbeats.put_heartbeat("w-1", {"workerId": "w-1"}, 60)
    assert {"workerId": "w-1"} in stores.heartbeats.list_heartbeats()

    lock = stores.locks.acquire("a", "me", 60)
    assert lock is not None
    assert stores.locks.owner_of("a") == "me"
    assert stores.locks.release(lock)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_and_wrong_types_in_keys_of_the_namespace_stop_nobody(server: RedisServer, kind: str) -> None:
    for name in NAMESPACE_KEYS:
        server.command("FLUSHALL")
        with opened(server.url) as stores:
            server.command(*(f"stem:{name}" if part == "KEY" else part for part in KINDS[kind]))
            work_through(stores, server)
            use_all_stores(stores)


FIELDS = {
    "{default}:meta": ("levels", "last", "since", "shortest", "serial", "empty", "from:p5"),
    "lock:a": ("owner", "fence", "expires"),
    "heartbeats": ("w-1", "w-2"),
    "revocations": ("a", "b"),
    "pauses": ("a", "b"),
    "senders": ("sender-1",),
}


@pytest.mark.parametrize("value", [b"\xff garbage", b"", b"-1", b"1e999", b"9" * 400])
def test_garbage_in_fields_that_are_ours_stops_nobody(server: RedisServer, value: bytes) -> None:
    for name, fields in FIELDS.items():
        for field in fields:
            server.command("FLUSHALL")
            with opened(server.url) as stores:
                publish(stores.broker, message("before"))
                server.command("HSET", f"stem:{name}", field, value)
                work_through(stores, server)
                use_all_stores(stores)


def test_an_entry_that_is_no_message_becomes_a_delivery_that_can_be_set_aside(server: RedisServer, broker: Broker) -> None:
    publish(broker, "good")
    for fields in (("x", "y"), ("h", "nonsense", "b", "body"), ("h", b"\xff\n\n\n0\n\xff", "b", "")):
        server.command("XADD", "stem:{default}:p5", "*", *fields)
    good, *bad = take(broker)
    assert good.state is not None
    assert [each.state for each in bad[:2]] == [None, None]
    answers = broker.settle([Settlement(each.lease, DeadLetter("malformed")) for each in bad])
    assert answers == [Done()] * 3
    assert len(broker.dead_letters("default").entries) == 3
    assert len(broker.replay_dead_letters("default")) == 3
    assert len(take(broker)) == 3
