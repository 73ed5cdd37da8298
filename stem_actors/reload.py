"""Notices that Python sources change, for `stem-node --reload`: with `watchfiles` where that is installed, else by looking."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["watch_sources"]

_EVERY = 1.0
_NOT_SOURCES = {"__pycache__", "node_modules", "site-packages"}


def watch_sources(directory: Path, changed: Callable[[str], None], stop: threading.Event, every: float = _EVERY) -> None:
    """Call `changed` with a path whenever a `.py` file below `directory` comes, goes or changes, until `stop` is set. Blocks.

    Several changes at once are one call. Hidden folders and installed packages do not count.
    """
    try:
        watchfiles = importlib.import_module("watchfiles")
    except ImportError:
        _poll(directory, changed, stop, every)
    else:
        _listen(watchfiles, directory, changed, stop)


def _listen(watchfiles: Any, directory: Path, changed: Callable[[str], None], stop: threading.Event) -> None:
    def is_source(_change: object, path: str) -> bool:
        folders = Path(os.path.relpath(path, directory)).parent.parts
        return path.endswith(".py") and not any(map(_is_passed_over, folders))

    for changes in watchfiles.watch(directory, watch_filter=is_source, stop_event=stop, ignore_permission_denied=True):
        changed(min(path for _, path in changes))


def _poll(directory: Path, changed: Callable[[str], None], stop: threading.Event, every: float) -> None:
    known = _stamps(directory)
    while not stop.wait(every):
        found = _stamps(directory)
        differing = sorted(path for path in known.keys() | found.keys() if known.get(path) != found.get(path))
        known = found
        if differing:
            changed(differing[0])


def _stamps(directory: Path) -> Mapping[str, int]:
    """Every source and when it was last written to."""
    stamps: dict[str, int] = {}
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not _is_passed_over(name)]
        for path in (os.path.join(folder, name) for name in files if name.endswith(".py")):
            try:
                stamps[path] = os.stat(path).st_mtime_ns
            except OSError:  # it has just gone
                continue
    return stamps


def _is_passed_over(folder: str) -> bool:
    return folder in _NOT_SOURCES or folder.startswith(".")
