"""Redis in real time, by its own clock: what the contract suite, which stands in for that clock, cannot see."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stem_actors.adapters import open_stores
from stem_actors.adapters.redis.broker import RedisBroker
from stem_actors.clock import SystemClock
from stem_actors.errors import ConfigError
from stem_actors.model.delivery import State
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, Release, Retry
from stem_actors.model.record import Settlement, TaskRecord
from stem_actors.ports import Broker, Done, Stale, Stores
from tests.contract.fabric import (
    PROMPTLY,
    counts,
    ids,
    meanwhile,
    message,
    publish,
    record_of,
    results_of,
    settle,
    take,
    take_one,
)
from tests.fixtures.redis_server import RedisServer, own_server

LONG = 30.0
VISIBILITY = 0.6


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.command("FLUSHALL")
    return shared


@pytest.fixture
def stores(server: RedisServer) -> Iterator[Stores]:
    stores = open_stores(server.url, clock=SystemClock(), visibility_timeout=VISIBILITY, max_deaths=2)
    yield stores
    stores.close()


@pytest.fixture
def broker(stores: Stores) -> Broker:
    return stores.broker


def sweep_until(broker: Broker, is_it: Callable[[], bool]) -> float:
    """Sweep as workers do, only more often; how long it took."""
    start = time.monotonic()
    while not is_it():
        assert time.monotonic() < start + PROMPTLY
        broker.sweep()
        time.sleep(0.05)
    return time.monotonic() - start


# ---------------------------------------------------------------- leases by the server's clock


def test_a_lease_lapses_by_the_servers_clock_within_a_second_of_its_visibility_timeout(broker: Broker) -> None:
    publish(broker, "a")
    lost = take_one(broker, "paused")
    took = sweep_until(broker, lambda: counts(broker)[0] == 1)
    assert VISIBILITY - 0.05 <= took < VISIBILITY + 1
    again = take_one(broker, "other")
    assert again.state == State(delivery_count=2, lapses=1)
    assert settle(broker, lost, record=record_of(lost)) == Stale()
    assert broker.extend([lost.lease, again.lease]) == [Stale(), Done()]
    assert broker.mark_started(lost.lease) == Stale()


def test_an_extended_lease_is_not_taken(broker: Broker) -> None:
    publish(broker, "a")
    held = take_one(broker)
    end = time.monotonic() + 3 * VISIBILITY
    while time.monotonic() < end:
        assert broker.extend([held.lease]) == [Done()]
        assert broker.sweep().reclaimed == 0
        time.sleep(VISIBILITY / 6)
    assert settle(broker, held) == Done()


def test_a_message_with_a_shorter_visibility_timeout_is_found_among_longer_ones(server: RedisServer) -> None:
    stores = open_stores(server.url, clock=SystemClock(), visibility_timeout=LONG)
    broker = stores.broker
    publish(broker, "long", message("short", visibility_timeout=VISIBILITY), message("longer", visibility_timeout=300.0))
    assert len(take(broker)) == 3
    sweep_until(broker, lambda: counts(broker)[0] == 1)
    assert ids(take(broker)) == ["short"]
    stores.close()


def test_marked_lapses_make_a_dead_letter_with_a_record_that_wakes_who_waits_for_it(stores: Stores) -> None:
    broker = stores.broker
    publish(broker, "a")
    with meanwhile(results_of(stores).wait, ["a"], LONG) as waited:
        for _ in range(2):
            handout = take_one(broker)
            assert broker.mark_started(handout.lease) == Done()
            sweep_until(broker, lambda: counts(broker)[1] == 0)
        assert waited.result(PROMPTLY)["a"].state is TaskState.FAILED
    assert counts(broker) == (0, 0, 0, 1)


def test_two_sweepers_take_a_lease_once(server: RedisServer, stores: Stores) -> None:
    others = [open_stores(server.url, clock=SystemClock(), visibility_timeout=VISIBILITY) for _ in range(3)]
    publish(stores.broker, *(f"task-{number}" for number in range(50)))
    take(stores.broker)
    end = time.monotonic() + PROMPTLY
    taken = 0
    while taken < 50 and time.monotonic() < end:
        taken += sum(each.broker.sweep().reclaimed for each in (stores, *others))
        time.sleep(0.02)
    assert taken == 50
    assert counts(stores.broker) == (50, 0, 0, 0)
    for each in others:
        each.close()


# ---------------------------------------------------------------- waiting


def test_a_consumer_that_waits_asks_the_server_next_to_nothing(server: RedisServer, broker: Broker) -> None:
    intake = broker.open_intake(["default"], "holder-1")
    intake.receive(10, 0.01)
    before = calls(server)
    for _ in range(6):
        assert intake.receive(10, 0.25) == []
    assert calls(server) - before <= 2


def test_a_sweep_wakes_who_still_waits_when_a_wake_up_was_swallowed(
    server: RedisServer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a consumer that was stopped just then: here it takes the other's place in the list while a message comes."""
    monkeypatch.setattr("stem_actors.adapters.redis.intake.LOOK_EVERY", LONG)
    intake = broker.open_intake(["default"], "holder-1")
    with meanwhile(intake.receive, 10, LONG) as received:
        end = time.monotonic() + PROMPTLY
        while (waiter := server.command("LPOP", "stem:{default}:waiters")) is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        publish(broker, "a")
        server.command("RPUSH", "stem:{default}:waiters", waiter)
        assert not broker.sweep().skipped
        assert ids(received.result(PROMPTLY)) == ["a"]


def test_a_control_reader_that_waits_asks_the_server_nothing(server: RedisServer, stores: Stores) -> None:
    bus = stores.control
    cursor = bus.cursor(["all", "me"])
    bus.pull(["all", "me"], cursor, wait=0.01)
    before = calls(server)
    for _ in range(4):
        assert bus.pull(["all", "me"], cursor, wait=0.1) == ([], cursor)
    assert calls(server) - before <= 1
    with meanwhile(bus.pull, ["all", "me"], cursor, 100, LONG) as pulled:
        stores.control.send("me", b"1", 60)
        assert pulled.result(PROMPTLY)[0] == [b"1"]


def test_a_control_reader_goes_past_the_messages_of_others_and_misses_none_of_its_own(stores: Stores) -> None:
    bus = stores.control
    start = bus.cursor(["me"])
    bus.send("others", b"0", 60)
    messages, cursor = bus.pull(["me", "us"], start)
    assert (messages, cursor > start) == ([], True)
    for number in range(5):
        bus.send(("me", "others", "us")[number % 3], b"%d" % number, 60)
    found: list[bytes] = []
    while messages or cursor < bus.cursor([]):
        messages, cursor = bus.pull(["me", "us"], cursor, limit=2)
        found += messages
    assert found == [b"0", b"2", b"3"]


def calls(server: RedisServer) -> int:
    """Scripts and commands of ours so far, not those inside scripts."""
    statistics = server.command("INFO", "commandstats")
    return sum(
        value["calls"]
        for name, value in statistics.items()
        if name in ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_get", "cmdstat_mget")
    )


def test_each_of_many_waiting_consumers_gets_one_of_many_messages(server: RedisServer, broker: Broker) -> None:
    intakes = [broker.open_intake(["default"], f"holder-{number}") for number in range(4)]
    with (
        meanwhile(intakes[0].receive, 1, LONG) as one,
        meanwhile(intakes[1].receive, 1, LONG) as two,
        meanwhile(intakes[2].receive, 1, LONG) as three,
        meanwhile(intakes[3].receive, 1, LONG) as four,
    ):
        end = time.monotonic() + PROMPTLY
        while server.command("LLEN", "stem:{default}:waiters") < 4 and time.monotonic() < end:
            time.sleep(0.005)
        publish(broker, *"abcd")
        received = [each.result(PROMPTLY) for each in (one, two, three, four)]
    assert sorted(handout.id for (handout,) in received) == ["a", "b", "c", "d"]


def test_a_consumer_of_several_queues_is_woken_by_each(server: RedisServer, broker: Broker) -> None:
    intake = broker.open_intake(["one", "two", "three"], "holder-1")
    for queue in ("three", "one", "two", "two"):
        with meanwhile(intake.receive, 10, LONG) as received:
            publish(broker, message(f"in-{queue}", queue=queue))
            assert ids(received.result(PROMPTLY)) == [f"in-{queue}"]
    assert server.command("KEYS", "stem:*waiters") == [], "who has work waits nowhere"


def test_a_closed_intake_leaves_the_wake_up_to_another(server: RedisServer, broker: Broker) -> None:
    gone, stays = broker.open_intake(["default"], "gone"), broker.open_intake(["default"], "stays")
    assert gone.receive(10, 0.01) == []
    with meanwhile(stays.receive, 10, LONG) as received:
        end = time.monotonic() + PROMPTLY
        while server.command("LLEN", "stem:{default}:waiters") < 2 and time.monotonic() < end:
            time.sleep(0.005)
        gone.close()
        start = time.monotonic()
        publish(broker, "a")
        assert ids(received.result(PROMPTLY)) == ["a"]
        assert time.monotonic() - start < 1


def _settle_elsewhere(url: str) -> None:
    stores = open_stores(url, clock=SystemClock())
    handout = take_one(stores.broker, "elsewhere")
    settle(stores.broker, handout, record=record_of(handout, payload=b"42"))
    stores.close()


def test_a_result_settled_in_another_process_ends_a_wait(server: RedisServer, stores: Stores) -> None:
    publish(stores.broker, "a")
    with meanwhile(results_of(stores).wait, ["a", "a"], LONG) as waited:
        process = multiprocessing.get_context("spawn").Process(target=_settle_elsewhere, args=(server.url,))
        process.start()
        assert waited.result(LONG)["a"].payload == b"42"
        process.join(LONG)


# ---------------------------------------------------------------- bounds


def test_many_incarnations_leave_no_consumers_and_no_waiters_behind(server: RedisServer, broker: Broker) -> None:
    assert isinstance(broker, RedisBroker)
    for number in range(500):
        publish(broker, "a", sender="the same")
        intake = broker.open_intake(["default"], f"holder-{number}")
        (handout,) = intake.receive(1, 0)
        settle(broker, handout)
    publish(broker, "held", sender="the same")
    held = take_one(broker, "holder-0")
    broker._sweeper.consumer_kept_ms = 0
    broker._sweeper._pruned_at = None
    sweep_until(broker, lambda: len(server.command("XINFO", "CONSUMERS", "stem:{default}:p5", "stem")) == 1)
    assert settle(broker, held) == Done()


def test_keys_and_entries_after_many_tasks_are_those_after_few(server: RedisServer, stores: Stores) -> None:
    broker = stores.broker
    sizes = []
    for tasks in (500, 10_000):
        publish(broker, *(f"{tasks}-{number}" for number in range(tasks)), sender="the same")
        while handouts := take(broker, 1000):
            some, others = handouts[::2], handouts[1::2]
            broker.settle([Settlement(each.lease, Ack(), None, record_of(each)) for each in some])
            broker.settle([Settlement(each.lease, Release() if number % 2 else Retry(0)) for number, each in enumerate(others)])
            broker.settle([Settlement(each.lease, Ack()) for each in take(broker, 1000)])
        keys = [key for key in server.command("KEYS", "*") if b":result" not in key]
        streams = [key for key in keys if server.command("TYPE", key) == b"stream"]
        sizes.append((sorted(keys), [server.command("XLEN", key) for key in streams]))
    assert sizes[0] == sizes[1]


def test_a_queue_that_held_nothing_for_long_is_forgotten_and_comes_back(server: RedisServer, broker: Broker) -> None:
    assert isinstance(broker, RedisBroker)
    publish(broker, "a")
    settle(broker, take_one(broker))
    broker._sweeper.queue_kept_ms = 0
    for _ in range(2):  # once to notice, once to forget
        broker._sweeper._pruned_at = None
        sweep_until(broker, lambda: broker._sweeper._pruned_at is not None)
    assert server.command("KEYS", "stem:{default}:*") == []
    broker._registered.clear()
    publish(broker, "b")
    assert ids(take(broker)) == ["b"]


def test_expired_records_leave_the_index(server: RedisServer) -> None:
    stores = open_stores(server.url, clock=SystemClock(), result_ttl=0.05)
    results = results_of(stores)
    results.set_many([TaskRecord(f"{number}", TaskState.SUCCEEDED) for number in range(300)])
    end = time.monotonic() + PROMPTLY
    while server.command("EXISTS", "stem:results") and server.command("XLEN", "stem:results"):
        assert time.monotonic() < end
        results.purge_expired()
    assert results.list_records().items == []
    stores.close()


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:port/0",
        "redis://:secret@host/zero",
        "redis://:secret@host/0?color=blue",
        "redis://:secret@host/0#part",
        "unix://host/path",
        "unix:///",
        "rediss://host:99999999",
    ],
)
def test_a_redis_url_that_is_not_understood_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match="URL") as caught:
        open_stores(url, clock=SystemClock())
    assert "secret" not in str(caught.value)


def test_names_of_redis_stores_hold_no_secrets() -> None:
    stores = open_stores("redis://user:secret@host:7000/3", "unix:///run/redis.sock?db=1", clock=SystemClock())
    named, results = "redis://host:7000/3", "unix:///run/redis.sock?db=1"
    assert stores.names == {"broker": named, "results": results, "revocations": results, "rate_limits": named}
    assert not stores.settles_results
    stores.close()
    assert open_stores("redis://host", "redis://user:x@host:6379/0", clock=SystemClock()).settles_results


def test_databases_and_both_ways_to_a_server_are_told_apart(server: RedisServer) -> None:
    with_socket: Any = open_stores(server.url, clock=SystemClock())
    by_port: Any = open_stores(server.tcp_url, clock=SystemClock())
    another: Any = open_stores(f"unix://{server.socket}?db=5", clock=SystemClock())
    publish(with_socket.broker, "a")
    assert counts(another.broker) == (0, 0, 0, 0)
    assert ids(take(by_port.broker)) == ["a"]
    for each in (with_socket, by_port, another):
        each.close()


def test_a_publication_waits_for_as_many_replicas_as_the_url_asks_for(server: RedisServer) -> None:
    from stem_actors.errors import BrokerUnavailable

    stores = open_stores(f"{server.url}&wait_replicas=1", clock=SystemClock())
    with pytest.raises(BrokerUnavailable, match="0 of 1 replicas"):
        stores.broker.publish("sender", 1, [message("a")])
    stores.close()


# ---------------------------------------------------------------- a holder that was stopped


def _hold(url: str, pipe: Any) -> None:
    """Take everything, say so, and when told to go on try whatever a holder can."""
    stores = open_stores(url, clock=SystemClock(), visibility_timeout=VISIBILITY)
    handouts = take(stores.broker, holder="stopped")
    pipe.send(ids(handouts))
    pipe.recv()
    acked, retried, released, renewed, marked = handouts
    answers = [
        settle(stores.broker, acked, record=record_of(acked, payload=b"stale")),
        settle(stores.broker, retried, Retry(0), record=record_of(retried, TaskState.RETRIED)),
        settle(stores.broker, released, Release()),
        *stores.broker.extend([renewed.lease]),
        stores.broker.mark_started(marked.lease),
    ]
    pipe.send([type(answer).__name__ for answer in answers])
    stores.close()


def test_a_holder_that_was_stopped_for_two_leases_is_refused_everything(server: RedisServer, stores: Stores) -> None:
    broker = stores.broker
    publish(broker, *"abcde")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(server.url, theirs))
    process.start()
    assert ours.poll(LONG)
    assert ours.recv() == list("abcde")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        stopped_at = time.monotonic()
        sweep_until(broker, lambda: counts(broker)[0] == 5 and time.monotonic() - stopped_at > 2 * VISIBILITY)
        again = take(broker, holder="successor")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    ours.send("go on")
    assert ours.poll(LONG)
    assert ours.recv() == ["Stale"] * 5
    process.join(LONG)
    assert results_of(stores).get("a") is None
    assert counts(broker) == (0, 5, 0, 0)
    assert broker.settle([Settlement(each.lease, Ack(), None, record_of(each)) for each in again]) == [Done()] * 5
