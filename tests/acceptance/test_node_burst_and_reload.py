"""`--burst`: work until the queues are empty. `--reload`: begin anew when a source changes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.fixtures.node import Place, eventually

SOON = 20.0


def test_a_burst_works_until_its_queues_are_empty_and_exits_well(place: Place) -> None:
    handles = [place.app.enqueue_by_name("jobs.note", [number, 0.05]) for number in range(20)]
    later = place.app.enqueue_by_name("jobs.note", [99], countdown=600)
    elsewhere = place.app.enqueue_by_name("jobs.note", [98], queue="other")
    node = place.start("--burst", is_ready=False)
    assert node.wait(SOON) == 0, node.log
    assert [handle.get(0) for handle in handles] == list(range(20))
    assert {str(handle.status().state) for handle in (later, elsewhere)} == {"queued"}
    assert node.everything() == set()


def test_a_burst_waits_for_what_still_runs(place: Place) -> None:
    handle = place.app.enqueue_by_name("jobs.wait_for", ["go"])
    node = place.start("--burst", "--workers", "2", is_ready=False)
    place.await_runs(handle.id)
    place.open_gate()
    assert node.wait(SOON) == 0, node.log
    assert handle.get(0) == "go"


def test_a_burst_with_nothing_to_do_still_tells_of_an_application_it_cannot_use(place: Place) -> None:
    assert place.start("--burst", is_ready=False).wait(SOON) == 0
    assert place.start("--burst", app="no_such_module", is_ready=False).wait(SOON) == 64


def test_burst_and_reload_do_not_go_together(place: Place) -> None:
    node = place.start("--burst", "--reload", is_ready=False)
    assert node.wait(SOON) == 64
    assert "choose one" in node.log


def edit(path: Path, text: str) -> None:
    """Write a file in one step, with a time of its own."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    new = path.with_suffix(".new")
    new.write_text(text)
    os.utime(new, ns=(before + 10**9, before + 10**9))
    new.replace(path)


APP = "from stem_actors import Stem\napp = Stem()\n@app.task(name='answer')\ndef answer() -> int:\n    return {}\n"


def test_workers_are_restarted_when_a_source_changes(place: Place) -> None:
    source = place.directory / "answers.py"
    edit(source, APP.format(41))
    node = place.start("--reload", app="answers")
    assert place.app.enqueue_by_name("answer").get(SOON) == 41
    first = node.worker()

    edit(source, "this is no Python")  # which ends neither the node nor its wish to try again
    eventually(lambda: "cannot be imported" in node.log, SOON)

    edit(source, APP.format(42))
    assert place.app.enqueue_by_name("answer").get(SOON) == 42
    assert node.worker() != first
    node.process.terminate()
    assert node.wait(SOON) == 0, node.log
