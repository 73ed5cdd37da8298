"""A database that is locked, and a disk that is full: the node says so, loses nothing, and goes on when it is over."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stem_actors import Handle
from stem_actors.errors import StorageFull
from tests.fixtures.node import Place, eventually

LOCKED_FOR = 10.0
TOLD_WITHIN = 5.0


def test_a_database_that_another_process_locks_makes_the_node_unready_until_it_is_free_again(place: Place) -> None:
    node = place.start("--concurrency", "2")
    handles = [place.app.enqueue_by_name("jobs.note", [number, 0.01]) for number in range(300)]
    place.await_runs(count=20)
    with closing(sqlite3.connect(place.directory / "stem.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked_at = time.monotonic()
        eventually(lambda: node.get("/readyz")[0] == 503, TOLD_WITHIN, "readyz says 503")
        assert "locked" in node.get("/readyz")[2]
        eventually(lambda: time.monotonic() - locked_at > LOCKED_FOR, LOCKED_FOR + 1)
        other.execute("ROLLBACK")
    node.wait_ready(10.0)
    assert [handle.get(timeout=20) for handle in handles] == list(range(300))
    assert len(place.runs(what="start")) == 300


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB; only root may make one."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(path)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_is_the_producers_error_and_the_node_goes_on_when_there_is_room(small_disk: Path) -> None:
    place = Place(small_disk)
    try:
        node = place.start("--concurrency", "1")
        before = [place.app.enqueue_by_name("jobs.add", [number, 1]) for number in range(50)]
        assert [handle.get(timeout=20) for handle in before] == list(range(1, 51))
        _fill(small_disk / "filler")
        accepted: list[Handle[Any]] = []
        with pytest.raises(StorageFull, match=r"full|failing"):
            for number in range(2000):
                accepted.append(place.app.enqueue_by_name("jobs.note", [number], {"seconds": 0.0}, headers={"pad": "x" * 2000}))
        refused = _enqueue_until_refused(place)
        assert refused.returncode == 70
        assert "full" in refused.stderr
        assert node.process.poll() is None
        (small_disk / "filler").unlink()
        node.wait_ready(20.0)
        assert [handle.get(timeout=30) for handle in accepted] == list(range(len(accepted)))
        assert place.app.enqueue_by_name("jobs.add", [20, 22]).get(timeout=20) == 42
    finally:
        place.close()


def _fill(path: Path) -> None:
    """Take what is free, but for a little: the last pages of a file system are never the same number."""
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(bytes(max(0, free - 128 * 1024)))


def _enqueue_until_refused(place: Place) -> subprocess.CompletedProcess[str]:
    """What settles meanwhile may leave a little room in the log, so the command may get through some times."""
    large = ("--header", f"pad={'x' * 100_000}")
    for _ in range(40):
        enqueued = place.shell.run("stem", "enqueue", "jobs.note", "--args", "[0]", "--broker", place.url, *large)
        if enqueued.returncode:
            return enqueued
    raise AssertionError("the disk is not full")
