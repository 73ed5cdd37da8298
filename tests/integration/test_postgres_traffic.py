"""What an idle node asks of Postgres: next to nothing, since hints wake it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.node import Place
from tests.fixtures.postgres_server import PostgresServer, own_server

WATCHED = 10.0


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with own_server("log_statement=all", "log_line_prefix=%a|") as server:
        yield server


def test_an_idle_node_sends_three_statements_a_second_for_each_worker_at_most(server: PostgresServer, tmp_path: Path) -> None:
    place = Place(tmp_path)
    try:
        place.start("--broker", server.url, "--workers", "2", "--concurrency", "1")
        before, start = len(statements(server)), time.monotonic()
        time.sleep(WATCHED)  # the time is what is measured
        told, took = statements(server)[before:], time.monotonic() - start
    finally:
        place.close()
    assert any("leased" in statement for statement in told), "nobody looked for work"
    assert len(told) / took <= 3 * 2, told


def statements(server: PostgresServer) -> list[str]:
    """What the server was asked by workers, each in one line."""
    told = re.split(r"\n(?=[^\s|]*\|)", (server.folder / "log").read_text())  # each begins with a name, or with none
    return [" ".join(each.split()) for each in told if re.match(r"stem-[^|]*\|LOG:\s+(execute|statement)", each)]
