"""What tests of whole workers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.fleet import Fleet
from tests.fixtures.waiting import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.soak), "sqlite"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Workers on a broker of either kind; those on threads are a soak's."""
    fleet = Fleet(tmp_path, request.param)
    yield fleet
    fleet.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Fleet]:
    """Workers that are processes, on SQLite."""
    fleet = Fleet(tmp_path, "sqlite")
    yield fleet
    fleet.close()
