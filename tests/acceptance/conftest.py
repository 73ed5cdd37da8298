"""What the acceptance tests share: a place where nodes run, and are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.node import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For tests that leave its nodes running."""
    made = Place(tmp_path_factory.mktemp("place"))
    try:
        yield made
    finally:
        made.close()
