"""The Redis broker answers as the memory broker does, whatever is done to it.

Two things are allowed to differ, and the twin is changed to match: what comes back joins behind what came back before, where
memory puts it in front; and of one batch at most one is released, since the order among several follows the entries' ids.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import astuple, is_dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import initialize

from stem_actors.adapters.memory.broker import MemoryBroker
from stem_actors.adapters.memory.space import Waiting
from stem_actors.model.outcome import Release
from stem_actors.ports import Stores
from tests.contract.fabric import MemoryFabric, RedisFabric
from tests.fixtures import redis_server
from tests.property import test_broker_twin as twin


class _BackInOrder:
    """Messages that came back keep the order in which they did."""

    def __init__(self) -> None:
        self.ids: set[int] = set()

    def put_first(self, broker: MemoryBroker, messages: Sequence[Waiting]) -> None:
        for message in messages:
            level: deque[Waiting] = broker._level(message)
            place = next((at for at, each in enumerate(level) if id(each) not in self.ids), len(level))
            level.insert(place, message)
            self.ids.add(id(message))
            self.kept.append(message)

    kept: list[Waiting] = []  # noqa: RUF012  # so that no id is used twice


class RedisTwin(twin.BrokerTwin):
    """As the SQLite broker's, with times compared to the millisecond."""

    @initialize()
    def open(self) -> None:
        super().open()
