"""What is counted before and after a run: of the nodes' processes, and of the broker, asked past Stem.

Broker keys are those that must not become more with every task: records are left out, which are kept for a day, and dead letters.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from stem_actors.config import Settings
from stem_actors.errors import BrokerUnavailable
from stem_cli.server_facts import endpoint_of
from stem_cli.store_facts import file_of

__all__ = ["count_broker", "count_processes", "forget_namespace"]

_KEPT = (b"result:", b"results", b"dead", b"names")
_PASSING = ("ready", "delayed", "leased", "revocation", "lock", "heartbeat", "control")
_PAGE = 1000


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
    """Keys of the namespace, and the memory (Redis) or the file (SQLite) of all that is there."""
    path = file_of(settings.broker_url)
    return _count_redis(settings) if path is None else _count_sqlite(path)


def _count_sqlite(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as database:
        keys = sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _PASSING)
        pages, size = (database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return {"keys": keys, "broker_bytes": pages * size}


def _count_redis(settings: Settings) -> dict[str, int]:
    with closing(_Asking(settings)) as server:
        prefix = len(settings.namespace) + 1
        keys = sum(1 for key in server.all_keys() if not _is_kept(key[prefix:]))
        memory = server.ask("INFO", "memory")
    lines = dict(line.split(b":", 1) for line in memory.split(b"\r\n") if b":" in line)
    return {"keys": keys, "broker_bytes": int(lines[b"used_memory"])}


def _is_kept(name: bytes) -> bool:
    """Whether a key holds what is kept after its task: records, dead letters (of a queue, `{queue}:dead…`), chosen ids."""
    return name.rpartition(b"}:")[2].startswith(_KEPT)


def forget_namespace(settings: Settings) -> None:
    """Delete all keys of a Redis namespace; of the run's own one, which nobody else uses."""
    with closing(_Asking(settings)) as server:
        page: list[bytes] = []
        for key in server.all_keys():
            page.append(key)
            if len(page) == _PAGE:
                server.ask("UNLINK", *page)
                page = []
        if page:
            server.ask("UNLINK", *page)


class _Asking:
    """One connection to a Redis server, past Stem's stores."""

    def __init__(self, settings: Settings) -> None:
        endpoint = endpoint_of(settings.broker_url, settings)
        assert endpoint is not None
        self._namespace = settings.namespace
        self._name = str(endpoint)
        self._connection: Any = endpoint.connection("stem-chaos", 5.0, 10.0)

    def close(self) -> None:
        self._connection.disconnect()

    def ask(self, *words: Any) -> Any:
        """The answer to a command.

        Raises:
            BrokerUnavailable: there is none.
        """
        import redis.exceptions as refused

        try:
            self._connection.connect()
            self._connection.send_command(*words)
            return self._connection.read_response()
        except refused.RedisError as error:
            raise BrokerUnavailable(f"{self._name} does not answer: {error}") from error

    def all_keys(self) -> Iterator[bytes]:
        """Those of the namespace; one may come twice."""
        cursor = b"0"
        while True:
            cursor, keys = self.ask("SCAN", cursor, "MATCH", f"{self._namespace}:*", "COUNT", _PAGE)
            yield from keys
            if cursor == b"0":
                return
