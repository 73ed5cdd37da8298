"""The servers that systems are compared on: private ones, on a port of their own, emptied before each measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from stem_actors.errors import OperatorError
from tests.fixtures import postgres_server, redis_server
from tests.fixtures.postgres_server import PostgresServer
from tests.fixtures.redis_server import RedisServer

__all__ = ["SERVERS", "Server"]

_ON_DISK = "/var/tmp"  # outlives a restart of the host, as /tmp does not everywhere
_DATABASE = "perf"
_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class Server(Protocol):
    """What a comparison needs of a server."""

    @property
    def url(self) -> str:
        """Where systems find it, by TCP."""
        ...

    def empty(self) -> None:
        """Forget whatever is there."""
        ...

    def describe(self) -> str:
        """What it is, and what it promises of its data."""
        ...


class _Redis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = server.tcp_url

    def empty(self) -> None:
        self._server.command("FLUSHALL")

    def describe(self) -> str:
        about = self._server.command("INFO", "server")
        name = about.get("server_name", "redis")
        return f"{name} {about.get(f'{name}_version', about.get('redis_version'))} without persistence"


class _Postgres:
    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.url = f"{server.tcp_url.removesuffix('/postgres')}/{_DATABASE}"

    def empty(self) -> None:
        """A new database. What is still to be written of the old one is, so that nobody pays for who was there before."""
        self._server.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        self._server.execute(f"CREATE DATABASE {_DATABASE}")
        self._server.execute("CHECKPOINT")

    def describe(self) -> str:
        ((version,),) = self._server.execute("SHOW server_version")
        settings = [f"{name} {self._server.execute(f'SHOW {name}')[0][0]}" for name in _DURABLE]
        return f"PostgreSQL {version.split()[0]} on disk, {', '.join(settings)}"


@contextmanager
def _redis() -> Iterator[Server]:
    if redis_server.program() is None:
        raise OperatorError("there is no redis-server 7 or newer to measure on. On Debian: apt install redis-server")
    with tempfile.TemporaryDirectory(prefix="stem-perf-redis-") as folder:
        server = RedisServer(Path(folder))
        try:
            server.start()
            yield _Redis(server)
        finally:
            server.kill()


@contextmanager
def _postgres() -> Iterator[Server]:
    """As it comes, so it waits for its disk at each commit."""
    if any(postgres_server.program(name) is None for name in ("initdb", "pg_ctl")):
        raise OperatorError("there is no Postgres to measure on. On Debian: apt install postgresql")
    with tempfile.TemporaryDirectory(prefix="stem-perf-postgres-", dir=_ON_DISK) as folder:
        server = PostgresServer(Path(folder), "shared_buffers=128MB")
        try:
            server.create()
            yield _Postgres(server)
        finally:
            server.stop()


SERVERS: Mapping[str, Callable[[], AbstractContextManager[Server]]] = {"redis": _redis, "postgres": _postgres}
