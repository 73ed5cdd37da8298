from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stem_actors.reload import watch_sources


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.Queue[str]]:
    """What a watch on `tmp_path` tells, where `watchfiles` is not installed."""

    def missing(name: str) -> None:
        raise ImportError(name)

    (tmp_path / "old.py").touch()
    monkeypatch.setattr(importlib, "import_module", missing)
    found: queue.Queue[str] = queue.Queue()
    stop, looks = threading.Event(), threading.Event()
    walk = os.walk

    def noted(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        yield from walk(top)
        looks.set()

    monkeypatch.setattr(os, "walk", noted)
    thread = threading.Thread(target=watch_sources, args=(tmp_path, found.put, stop, 0.01))
    thread.start()
    assert looks.wait(10)
    yield found
    stop.set()
    thread.join()


def test_new_changed_and_removed_sources_are_told(tmp_path: Path, changes: queue.Queue[str]) -> None:
    old, new = tmp_path / "old.py", tmp_path / "package" / "new.py"
    new.parent.mkdir()
    new.touch()
    assert changes.get(timeout=10) == str(new)
    os.utime(old, (1, 1))
    assert changes.get(timeout=10) == str(old)
    old.unlink()
    assert changes.get(timeout=10) == str(old)


def test_other_files_are_not_told(tmp_path: Path, changes: queue.Queue[str]) -> None:
    for name in ("stem.db", ".hidden/a.py", "__pycache__/b.py", "last.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert changes.get(timeout=10) == str(tmp_path / "last.py")


def test_watchfiles_tells_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("last.py", "stem.db", ".hidden/a.py", "package/__pycache__/b.py", "package/first.py")

    def watch(directory: Path, *, watch_filter: Any, stop_event: object, ignore_permission_denied: bool) -> Any:
        changes = {(1, str(directory / name)) for name in names}
        yield {(change, path) for change, path in changes if watch_filter(change, path)}

    monkeypatch.setitem(sys.modules, "watchfiles", SimpleNamespace(watch=watch))
    found: list[str] = []
    watch_sources(tmp_path, found.append, threading.Event())
    assert found == [str(tmp_path / "last.py")]
