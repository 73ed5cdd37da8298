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
    sources = watchfiles.PythonFilter(ignore_dirs=[*watchfiles.PythonFilter.ignore_dirs, *_NOT_SOURCES])
    for changes in watchfiles.watch(directory, watch_filter=sources, stop_event=stop, raise_interrupt=False):
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
        folders[:] = [name for name in folders if name not in _NOT_SOURCES and not name.startswith(".")]
        for path in (os.path.join(folder, name) for name in files if name.endswith(".py")):
            try:
                stamps[path] = os.stat(path).st_mtime_ns
            except OSError:  # it has just gone
                continue
    return stamps
