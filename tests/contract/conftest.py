"""Runs the suite against every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.ports import Broker, ResultBackend, Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import FABRICS, Fabric


@pytest.fixture(params=FABRICS)
def fabric(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fabric]:
    fabric = FABRICS[request.param](tmp_path)
    yield fabric
    fabric.close()


@pytest.fixture
def clock(fabric: Fabric) -> ManualClock:
    return fabric.clock


@pytest.fixture
def stores(fabric: Fabric) -> Stores:
    return fabric.open()


@pytest.fixture
def broker(stores: Stores) -> Broker:
    return stores.broker


@pytest.fixture
def results(stores: Stores) -> ResultBackend:
    assert stores.results is not None
    return stores.results
