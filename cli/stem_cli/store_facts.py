"""What there is to know of the store behind a URL, beside its answers: of SQLite the file and its disk. Redis: `server_facts`."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from stem_cli.output import readable_bytes

__all__ = ["StoreFacts", "describe", "file_of"]

_LITTLE_ROOM = 2**30  # bytes free on a disk
_LONG_LOG = 256 * 2**20  # bytes; the adapter shortens the log at 32 MiB unless somebody reads it all the time


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """`text` for people, `values` for JSON, `hints` for what should be seen to, `problem` for what keeps workers away."""

    text: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    hints: Sequence[str] = ()
    problem: str = ""


def file_of(url: str) -> Path | None:
    """The file of an SQLite URL (three slashes: relative, four: absolute); None for any other."""
    parts = urlsplit(url)
    if parts.scheme not in ("sqlite", "file"):
        return None
    return Path(unquote(parts.path.removeprefix("/")))


def describe(url: str) -> StoreFacts:
    """Look at the store from outside; what cannot be seen is left out."""
    if url.lower().startswith("memory"):
        return StoreFacts(
            "(private to each process that opens it: nothing that another program enqueues arrives here)",
            {"kind": "memory", "isPrivate": True},
        )
    path = file_of(url)
    return StoreFacts("", {"kind": urlsplit(url).scheme}) if path is None else _of_file(path.resolve())


def _of_file(path: Path) -> StoreFacts:
    size, log = _size(path), _size(path.with_name(path.name + "-wal"))
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else None
    mode = _journal_mode(path)
    hints = []
    if mode not in (None, "wal"):
        hints.append(f"{path} has journal mode {mode}, with which readers block: a copy of it made by another tool?")
    if free is not None and free < _LITTLE_ROOM:
        hints.append(f"make room: the disk under {path} has {readable_bytes(free)} left")
    if log is not None and log > _LONG_LOG:
        hints.append(f"{path}-wal has {readable_bytes(log)}: look for a process that reads {path} all the time, such as a backup")
    values = {"kind": "sqlite", "path": str(path), "journalMode": mode, "sizeBytes": size, "walBytes": log, "freeBytes": free}
    parts = [
        f"{readable_bytes(size)}",
        f"journal {mode}",
        f"log {readable_bytes(log or 0)}",
        f"{readable_bytes(free)} free on its disk",
    ]
    return StoreFacts(f"({', '.join(parts)})", values, hints)


def _journal_mode(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=0.1)) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            return str(mode)
    except sqlite3.Error:
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
