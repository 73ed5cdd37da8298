"""What unique tasks cost a Redis server, and that tasks which are not unique pay nothing for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from stem_actors.model.outcome import Ack
from stem_actors.model.record import Settlement
from stem_actors.model.uniqueness import Claim
from stem_actors.ports import Broker, Message
from tests.contract.fabric import RedisFabric, message, take
from tests.fixtures.redis_server import RedisServer, own_server

COUNT = 100


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def broker(server: RedisServer, tmp_path: Path) -> Iterator[Broker]:
    fabric = RedisFabric(tmp_path)
    fabric.url = server.url
    yield fabric.open_in_real_time().broker
    fabric.close()


@contextmanager
def counted(server: RedisServer) -> Iterator[Counter[str]]:
    """The commands that the server has carried out meanwhile, those inside scripts too."""
    spent: Counter[str] = Counter()
    with redis.Redis.from_url(server.url) as client:

        def calls() -> Counter[str]:
            stats: Any = client.info("commandstats")
            return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})

        before = calls()
        yield spent
        spent.update(calls() - before)


def pass_through(broker: Broker, messages: list[Message], number: int) -> None:
    broker.publish("sender", number, messages)
    handouts = take(broker, len(messages))
    assert len(handouts) == len(messages)
    broker.settle([Settlement(handout.lease, Ack()) for handout in handouts])


def test_a_task_that_is_not_unique_costs_no_command_for_those_that_are(server: RedisServer, broker: Broker) -> None:
    pass_through(broker, [message("first")], 1)
    with counted(server) as plain:
        pass_through(broker, [message(f"p{number}") for number in range(COUNT)], 2)
    assert plain["xadd"] == COUNT
    assert not plain.keys() & {"get", "set", "xrange"}
    assert plain["xack"] == plain["xdel"] == 1
    with counted(server) as unique:
        pass_through(broker, [message(f"u{number}", claim=Claim(f"key-{number}")) for number in range(COUNT)], 3)
    assert (unique["get"], unique["set"], unique["xrange"]) == (2 * COUNT, COUNT, COUNT)
    assert unique["xack"] == unique["xdel"] == 1


def test_a_claim_that_somebody_spoiled_is_nobodys(server: RedisServer, broker: Broker) -> None:
    broker.publish("sender", 1, [message("first", claim=Claim("k"))])
    with redis.Redis.from_url(server.url) as client:
        (name,) = client.scan_iter("*:unique:k")
        for spoil in (lambda: client.set(name, b"garbage"), lambda: (client.delete(name), client.rpush(name, "a", "list"))):
            spoil()
            assert broker.publish("other", client.incr("number"), [message(f"next-{id(spoil)}", claim=Claim("k"))]) == {}
    assert len(broker.claims("k")) == 1
