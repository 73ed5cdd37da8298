"""What an idle node asks of Postgres: next to nothing, since hints wake it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.node import Place
from tests.fixtures.postgres_server import PostgresServer, own_server

ROUNDS = 6
WATCHED = 6.0  # longer than it may be since somebody looked for work
MOST = 36  # three a second, of two workers


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with own_server("log_statement=all", "log_line_prefix=%a|") as server:
        yield server


def test_an_idle_node_sends_three_statements_a_second_for_each_worker_at_most(server: PostgresServer, tmp_path: Path) -> None:
    """Once it has come to rest, which takes a busy machine a while: one round of several has to keep it."""
    place = Place(tmp_path)
    rounds: list[list[str]] = []
    try:
        place.start("--broker", server.url, "--workers", "2", "--concurrency", "1")
        while len(rounds) < ROUNDS and not (rounds and len(rounds[-1]) <= MOST):
            before = len(statements(server))
            time.sleep(WATCHED)  # the time is what is measured
            rounds.append(statements(server)[before:])
    finally:
        place.close()
    assert any("leased" in statement for statement in rounds[-1]), "nobody looked for work"
    assert len(rounds[-1]) <= MOST, rounds[-1]


def statements(server: PostgresServer) -> list[str]:
    """What the server was asked by workers, each in one line."""
    told = re.split(r"\n(?=[^\s|]*\|)", (server.folder / "log").read_text())  # each begins with a name, or with none
    return [" ".join(each.split()) for each in told if re.match(r"stem-[^|]*\|LOG:\s+(execute|statement)", each)]
