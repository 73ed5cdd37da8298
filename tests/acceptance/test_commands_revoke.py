"""`stem task revoke`, and revocations that are kept in a place of their own (`STEM_REVOKE_STORE_URL`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Settings, Stem
from stem_actors.adapters import open_stores
from stem_actors.clock import SystemClock
from tests.fixtures.node import Place, eventually
from tests.fixtures.redis_server import own_server


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place on either broker."""
    with nullcontext() if request.param == "sqlite" else own_server() as server:
        place = Place(tmp_path)
        if server is not None:
            place.app.close()
            place.url = server.url
            place.app = Stem(settings=Settings(broker_url=server.url))
        place.environ["STEM_BROKER_URL"] = place.url
        try:
            yield place
        finally:
            place.close()


def when_cancelled(place: Place, task_id: str) -> dict[str, Any]:
    """The task's record as the command shows it, once it is cancelled."""

    def record() -> dict[str, Any] | None:
        found: dict[str, Any] = place.shell.json("stem", "task", "show", task_id, "--json")
        return found if found["state"] == "cancelled" else None

    found = eventually(record)
    assert found is not None
    return found


def revoked_at(url: str) -> list[str]:
    """Whose revocations a store holds."""
    stores = open_stores(url, clock=SystemClock())
    try:
        return [each.task_id for each in stores.revocations.list_since()]
    finally:
        stores.close()


def test_tasks_are_revoked_wherever_they_are(cluster: Place) -> None:
    cluster.start("--concurrency", "1")
    running = cluster.app.enqueue_by_name("jobs.wait_for", ["go"]).id
    cluster.await_runs(running)
    waiting = cluster.app.enqueue_by_name("jobs.note", [1]).id
    words = ("--terminate", "--reason", "wrong month", "--requester", "ada", "--json")
    (reply,) = cluster.shell.json("stem", "task", "revoke", running, waiting, *words)
    assert (reply["workerId"], reply["status"], reply["payload"]["revoked"]) == ("n1-1", "ok", 2)
    assert set(reply["payload"]["tasks"]) == {running, waiting}
    for task_id in (running, waiting):
        meta = when_cancelled(cluster, task_id)["meta"]
        assert (meta["revoked"], meta["revokedReason"], meta["revokedBy"]) == (True, "wrong month", "ada")
        assert meta["revokedAt"].endswith("Z")
    assert cluster.runs(waiting) == []
    assert cluster.runs(running, "end") == []


def test_without_workers_it_is_stored_and_says_so(cluster: Place) -> None:
    task_ids = [cluster.app.enqueue_by_name("jobs.note", [number]).id for number in range(2)]
    done = cluster.shell.run("stem", "task", "revoke", *task_ids, "--timeout", "200ms", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "2 revoked; no worker has answered" in done.stderr
    cluster.start()
    for task_id in task_ids:
        assert when_cancelled(cluster, task_id)["meta"]["revokedBy"] == "stem-cli"
    assert cluster.runs() == []


def test_a_revocation_is_forgotten_after_the_time_it_was_given(place: Place) -> None:
    task_id = place.app.enqueue_by_name("jobs.note", [1]).id
    place.shell.out("stem", "task", "revoke", task_id, "--expires-in", "500ms", "--timeout", "600ms")
    place.start()
    assert place.app.handle(task_id).get(timeout=15) == 1


def test_wrong_usage_is_said(place: Place) -> None:
    assert place.shell.code("stem", "task", "revoke")[0] == 64
    assert place.shell.code("stem", "task", "revoke", "a", "--expires-in", "soon")[0] == 64
    assert place.shell.code("stem", "task", "revoke", "a", "--timeout", "0")[0] == 64


# ---------------------------------------------------------------- a place of their own


@pytest.mark.parametrize("where", ["kept/", "redis"])
def test_nodes_and_commands_keep_revocations_where_they_are_told_to(place: Place, where: str) -> None:
    (place.directory / "kept").mkdir()
    with own_server("--appendonly", "yes", "--maxmemory", "100mb") if where == "redis" else nullcontext() as server:
        url = f"sqlite:///{place.directory}/kept/revokes.stem" if server is None else server.tcp_url
        place.environ["STEM_REVOKE_STORE_URL"] = where if server is None else url
        place.environ["STEM_BROKER_URL"] = place.url
        waiting = place.app.enqueue_by_name("jobs.note", [1]).id
        place.shell.out("stem", "task", "revoke", waiting, "--timeout", "200ms")
        assert revoked_at(url) == [waiting]
        assert revoked_at(place.url) == []

        place.start()
        when_cancelled(place, waiting)
        running = place.app.enqueue_by_name("jobs.wait_for", ["go"]).id
        place.await_runs(running)
        place.shell.out("stem", "task", "revoke", running, "--terminate")
        when_cancelled(place, running)
        assert place.runs(waiting) == []
        found = {each["component"]: each for each in place.shell.json("stem", "health", "--json")}
        assert found["revocations"]["status"] == "ok"
        assert found["revocations"]["message"].startswith(f"connected to {url}")
        assert found["revocations"]["context"]["store"]["kind"] == ("sqlite" if server is None else "redis")
        checks = {each["check"]: each for each in place.shell.json("stem", "doctor", "--json")["checks"]}
        assert checks["revocations"]["ok"], checks["revocations"]


def test_a_place_that_cannot_be_used_is_said(place: Place) -> None:
    place.app.enqueue_by_name("jobs.note", [1])
    place.environ["STEM_REVOKE_STORE_URL"] = "no/such/directory/"
    node = place.start(is_ready=False)
    assert node.wait(15) == 70
    assert "no/such/directory" in node.log
    code, text = place.shell.code("stem", "task", "revoke", "a")
    assert (code, "no/such/directory" in text) == (70, True)
    for wrong in ("memory://", "carrier-pigeon://loft"):
        place.environ["STEM_REVOKE_STORE_URL"] = wrong
        node = place.start(is_ready=False)
        assert node.wait(15) == 64
        assert "STEM_REVOKE_STORE_URL" in node.log
        assert place.shell.code("stem", "task", "revoke", "a")[0] == 64


def test_health_says_that_the_place_is_not_there_yet(place: Place) -> None:
    place.app.enqueue_by_name("jobs.note", [1])
    place.environ["STEM_REVOKE_STORE_URL"] = "revokes.stem"
    done = place.shell.run("stem", "health", "--json")
    (found,) = json.loads(done.stdout)
    assert (done.returncode, found["component"]) == (70, "revocations")
    assert "the first worker that starts makes it" in found["context"]["hints"][0]
    assert not (place.directory / "revokes.stem").exists()
