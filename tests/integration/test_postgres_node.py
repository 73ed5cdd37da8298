"""The commands on Postgres: a node works there, and `stem health` says what the server is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures import postgres_server
from tests.fixtures.node import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def url() -> str:
    return f"{postgres_server.shared_url()}&schema={postgres_server.new_schema()}"


def test_a_node_runs_what_is_enqueued_there(place: Place, url: str) -> None:
    place.start("--broker", url)
    done = place.shell.run("stem", "enqueue", "jobs.add", "--args", "[2, 3]", "--broker", url, "--wait", "20s")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "5"), done.stderr
    listed = place.shell.run("stem", "task", "list", "--broker", url, "--json")
    assert [each["state"] for each in json.loads(listed.stdout)["items"]] == ["succeeded"]


def test_health_says_what_the_server_is_and_what_to_change_there(place: Place, url: str) -> None:
    done = place.shell.run("stem", "health", "--broker", url, "--json")
    findings = json.loads(done.stdout)
    assert (done.returncode, {each["status"] for each in findings}) == (0, {"ok"})
    store = findings[0]["context"]["store"]
    assert (store["kind"], store["isDurable"]) == ("postgres", False)
    assert "set fsync = on" in done.stdout, "the tests' server is careless"


def test_health_of_a_server_that_is_away_names_it_and_no_secret(place: Place) -> None:
    done = place.shell.run("stem", "health", "--broker", "postgres://me:secret@127.0.0.1:1/shop", "--json")
    assert done.returncode == 70
    assert "postgres://127.0.0.1:1/shop does not answer" in done.stdout
    assert "secret" not in done.stdout + done.stderr
