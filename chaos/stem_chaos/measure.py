"""What is counted before and after a run: of the nodes' processes, and of the broker, asked past Stem.

Broker keys are those that must not become more with every task: records are left out, which are kept for a day, and dead letters.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from stem_actors.adapters import postgres
from stem_actors.config import Settings
from stem_cli.namespaces import RedisNamespace
from stem_cli.server_facts import postgres_endpoint_of
from stem_cli.store_facts import file_of

__all__ = ["count_broker", "count_processes"]

_KEPT = (b"result:", b"results", b"dead", b"names")
_PASSING = ("ready", "delayed", "leased", "revocation", "lock", "heartbeat", "control")


def count_processes(pids: Iterable[int]) -> dict[str, int]:
    """Processes below these, these included: how many, and their threads, descriptors and memory together."""
    counted = {"processes": 0, "threads": 0, "descriptors": 0, "memory_bytes": 0}
    for process in _with_children(pids):
        with suppress(psutil.Error):
            with process.oneshot():
                more = {
                    "processes": 1,
                    "threads": process.num_threads(),
                    "descriptors": process.num_fds(),
                    "memory_bytes": process.memory_info().rss,
                }
            counted = {name: counted[name] + more[name] for name in counted}
    return counted


def _with_children(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def count_broker(settings: Settings) -> dict[str, int]:
    """Keys of the namespace, and the memory (Redis), the file (SQLite) or the tables (Postgres) of all that is there."""
    path = file_of(settings.broker_url)
    if path is not None:
        return _count_sqlite(path)
    place = postgres_endpoint_of(settings.broker_url, settings)
    if place is None:
        return _count_redis(settings)
    keys, size = postgres.count(place, settings.namespace, _PASSING)
    return {"keys": keys, "broker_bytes": size}


def _count_sqlite(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as database:
        keys = sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _PASSING)
        pages, size = (database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return {"keys": keys, "broker_bytes": pages * size}


def _count_redis(settings: Settings) -> dict[str, int]:
    with closing(RedisNamespace(settings)) as server:
        prefix = len(settings.namespace) + 1
        keys = sum(1 for page in server.pages() for key in page if not _is_kept(key[prefix:]))
        memory = server.ask("INFO", "memory")
    lines = dict(line.split(b":", 1) for line in memory.split(b"\r\n") if b":" in line)
    return {"keys": keys, "broker_bytes": int(lines[b"used_memory"])}


def _is_kept(name: bytes) -> bool:
    """Whether a key holds what is kept after its task: records, dead letters (of a queue, `{queue}:dead…`), chosen ids."""
    return name.rpartition(b"}:")[2].startswith(_KEPT)
