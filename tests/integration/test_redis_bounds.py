"""What stays behind: nothing in the server after many tasks, nothing in the worker for many that wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from stem_actors.adapters import open_stores
from stem_actors.adapters.redis.broker import RedisBroker
from stem_actors.clock import SystemClock
from stem_actors.model.delivery import Handout
from stem_actors.model.outcome import Ack, Release, Retry, Verdict
from stem_actors.model.record import Settlement
from stem_actors.ports import Done, Stores
from tests.contract.fabric import message, publish, record_of, results_of, take
from tests.fixtures.fleet import Fleet, ProcessWorker
from tests.fixtures.redis_server import RedisServer, own_server
from tests.fixtures.waiting import until

RESULT_TTL = 0.2
BATCH = 1000
SPARE_BYTES = 400_000
"""By which the server's own tables may differ."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_server() as server:
        yield server


# ---------------------------------------------------------------- the server


@dataclass(frozen=True)
class Footprint:
    """What a namespace takes up in a server."""

    keys: int
    entries: int
    consumers: int
    used_bytes: int


def footprint(server: RedisServer) -> Footprint:
    server.command("MEMORY", "PURGE")
    keys = server.command("KEYS", "*")
    sizes = {b"stream": "XLEN", b"hash": "HLEN", b"zset": "ZCARD", b"set": "SCARD", b"list": "LLEN"}
    types = {key: server.command("TYPE", key) for key in keys}
    entries = sum(server.command(sizes[kind], key) for key, kind in types.items() if kind in sizes)
    lanes = [key for key in keys if b"}:p" in key or b"}:b" in key]
    consumers = sum(len(server.command("XINFO", "CONSUMERS", lane, "stem")) for lane in lanes)
    return Footprint(len(keys), entries, consumers, int(server.command("INFO", "memory")["used_memory"]))


def run_tasks(stores: Stores, count: int, name: str) -> None:
    """Each with its result; of ten one is retried and one released first. Each thousand has a consumer of its own."""
    first_verdicts: dict[int, Verdict] = {0: Retry(0), 1: Release()}
    for start in range(0, count, BATCH):
        publish(stores.broker, *(message(f"{name}-{number}") for number in range(start, start + BATCH)), sender="one")
        holder = f"{name}-{start}"
        handouts = take(stores.broker, BATCH, holder)
        verdicts = [first_verdicts.get(number % 10, Ack()) for number in range(BATCH)]
        end(stores, handouts, verdicts)
        again = take(stores.broker, BATCH, holder)
        assert (len(handouts), len(again)) == (BATCH, BATCH // 5)
        end(stores, again, [Ack()] * len(again))


def end(stores: Stores, handouts: Sequence[Handout], verdicts: Sequence[Verdict]) -> None:
    settlements = [
        Settlement(each.lease, verdict, None, record_of(each) if verdict == Ack() else None)
        for each, verdict in zip(handouts, verdicts, strict=True)
    ]
    assert stores.broker.settle(settlements) == [Done()] * len(settlements)


def settle_down(server: RedisServer, stores: Stores) -> Footprint:
    """Once results have expired and a housekeeper has been round."""
    broker = stores.broker
    assert isinstance(broker, RedisBroker)
    broker._sweeper.consumer_kept_ms = 0

    def is_quiet() -> bool:
        broker._sweeper._pruned_at = None
        broker.sweep()
        results_of(stores).purge_expired()
        return server.command("XLEN", "stem:results") == 0 and footprint(server).consumers == 0

    until(is_quiet, 30.0, "results and consumers are gone")
    return footprint(server)


@pytest.mark.parametrize("count", [10_000, pytest.param(200_000, marks=pytest.mark.soak)])
def test_keys_consumers_and_memory_of_the_server_are_back_where_they_began(server: RedisServer, count: int) -> None:
    stores = open_stores(server.url, clock=SystemClock(), result_ttl=RESULT_TTL)
    run_tasks(stores, BATCH, "first")  # after which every key is there that stays
    before = settle_down(server, stores)
    run_tasks(stores, count, "more")
    after = settle_down(server, stores)
    stores.close()
    assert (after.keys, after.entries, after.consumers) == (before.keys, before.entries, before.consumers)
    assert after.used_bytes < before.used_bytes + SPARE_BYTES


# ---------------------------------------------------------------- the worker


def worker_bytes(worker: ProcessWorker) -> int:
    """Memory that is the worker's alone."""
    found: int = psutil.Process(worker.pid).memory_full_info().uss
    return found


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_delayed_tasks_cost_the_worker_no_memory(server: RedisServer, tmp_path: Path, count: int) -> None:
    fleet = Fleet(tmp_path, "redis", broker_url=server.url)
    try:
        worker = fleet.start_process()
        assert fleet.enqueue("echo", 1).get() == 1
        before = worker_bytes(worker)
        step = 10_000
        for start in range(0, count, step):
            fleet.app.stores.broker.publish(
                "one", start + 1, [message(f"{number}", delay=3600.0) for number in range(start, start + step)]
            )
        for _ in range(3):
            wait_for_sweep(server)
        assert fleet.enqueue("echo", 2).get(60.0) == 2, "what is ready goes past them"
        after = worker_bytes(worker)
    finally:
        fleet.close()
    assert after < before + 4 * 2**20


def wait_for_sweep(server: RedisServer) -> None:
    def last() -> bytes:
        found: bytes = server.command("HGET", "stem:{default}:meta", "last")
        return found

    before = last()
    until(lambda: last() != before, what="a sweep")
