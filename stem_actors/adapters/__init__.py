"""Opening stores by URL: the scheme picks the folder. One folder per technology, in each one module per port.

A technology is loaded when a URL names it: all of them together cost a command half its time, and a worker some MiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from stem_actors.adapters.tls import Identity
from stem_actors.clock import Clock
from stem_actors.config import Settings, file_url
from stem_actors.errors import ConfigError
from stem_actors.model.lapse import Retention
from stem_actors.ports import (
    Broker,
    ControlBus,
    HeartbeatStore,
    LockStore,
    PauseStore,
    RateLimiter,
    ResultBackend,
    RevokeStore,
    Stores,
)

if TYPE_CHECKING:
    from stem_actors.adapters import postgres, redis

__all__ = ["SCHEMES", "Opened", "Synchronous", "is_same_place", "open_configured", "open_stores"]

Synchronous: TypeAlias = Literal["full", "normal"]

SCHEMES = {
    "memory": "memory",
    "sqlite": "sqlite",
    "file": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "postgres": "postgres",
    "postgresql": "postgres",
    "postgres+ssl": "postgres",
    "postgresql+ssl": "postgres",
}
NO_RESULTS = "none"


def open_stores(
    broker_url: str,
    backend_url: str | None = None,
    *,
    revoke_url: str | None = None,
    rate_limit_url: str | None = None,
    namespace: str = "stem",
    clock: Clock,
    visibility_timeout: float = 30.0,
    result_ttl: float = 86400.0,
    dead_letter_ttl: float = 30 * 86400.0,
    max_deaths: int = 5,
    synchronous: Synchronous = "full",
    accept_data_loss: bool = False,
    identity: Identity | None = None,
) -> Stores:
    """The stores behind these URLs. Nothing is connected to or created before its first use.

    `backend_url` None: the broker's; `"none"`: no results. `revoke_url`, URL or path, None: where the results are, unless that
    is nowhere or in memory, else the broker's. `rate_limit_url` None: the broker's. A memory URL names nothing: every call opens
    stores of its own, so whoever wants to share them shares what this returns. `accept_data_loss`: also a server that may drop
    tasks is used.
    `identity`: whom to trust over TLS, and who we are; None: the system's authorities, and nobody.

    Raises:
        ConfigError: a URL is not understood.
    """
    place = _place(broker_url)
    results_place = None if backend_url == NO_RESULTS else place if backend_url is None else _place(backend_url)
    revoke_place = place if results_place is None or results_place.technology == "memory" else results_place
    if revoke_url is not None:
        revoke_place = _place(file_url(revoke_url))
    limits_place = place if rate_limit_url is None else _place(rate_limit_url)
    retention = Retention(visibility_timeout, max_deaths, dead_letter_ttl, result_ttl if results_place == place else None)
    opened: dict[_Place, Opened] = {}

    def at(where: _Place) -> Opened:
        if where not in opened:
            opened[where] = _open(where, namespace, clock, synchronous, accept_data_loss, identity or Identity())
        return opened[where]

    server = at(place)
    return Stores(
        broker=server.broker(retention),
        results=None if results_place is None else at(results_place).results(result_ttl),
        revocations=at(revoke_place).revocations(),
        pauses=at(revoke_place).pauses(),
        locks=server.locks(),
        rate_limits=at(limits_place).rate_limits(),
        heartbeats=server.heartbeats(),
        control=server.control(),
        settles_results=results_place == place,
        names={
            "broker": str(place),
            "results": NO_RESULTS if results_place is None else str(results_place),
            "revocations": str(revoke_place),
            "rate_limits": str(limits_place),
        },
    )


def open_configured(settings: Settings, clock: Clock) -> Stores:
    """The stores that `settings` name; see `open_stores`."""
    return open_stores(
        settings.broker_url,
        settings.result_backend_url,
        revoke_url=settings.revoke_store_url,
        rate_limit_url=settings.rate_limit_url,
        namespace=settings.namespace,
        clock=clock,
        visibility_timeout=settings.visibility_timeout,
        result_ttl=settings.result_ttl,
        dead_letter_ttl=settings.dead_letter_ttl,
        max_deaths=settings.max_deliveries,
        synchronous="normal" if settings.sqlite_synchronous == "normal" else "full",
        accept_data_loss=settings.accept_data_loss,
        identity=Identity.from_settings(settings),
    )


def is_same_place(one: str, other: str) -> bool:
    """Whether two URLs lead to one server or file; relative ones are seen from the working directory."""
    return _place(one) == _place(other)


class Opened(Protocol):
    """One namespace of one server: what every technology's folder offers."""

    def broker(self, retention: Retention) -> Broker: ...
    def results(self, ttl: float) -> ResultBackend: ...
    def revocations(self) -> RevokeStore: ...
    def pauses(self) -> PauseStore: ...
    def locks(self) -> LockStore: ...
    def rate_limits(self) -> RateLimiter: ...
    def heartbeats(self) -> HeartbeatStore: ...
    def control(self) -> ControlBus: ...


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads; equal for two URLs of one server. As text it holds no secret."""

    technology: str
    path: str = ""
    endpoint: redis.Endpoint | postgres.Endpoint | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        if self.endpoint is not None:
            return self.path
        return f"{self.technology}://{'/' if self.path else ''}{self.path}"


def _place(url: str) -> _Place:
    scheme, _, rest = url.partition(":")
    technology = SCHEMES.get(scheme.lower())
    if technology is None:
        named = f"{scheme}:" if rest else "a URL without a scheme"
        raise ConfigError(f"{named} names no store that Stem knows. Accepted are {', '.join(f'{each}:' for each in SCHEMES)}.")
    if technology == "memory":
        return _Place(technology)
    if technology == "redis":
        from stem_actors.adapters import redis

        endpoint = redis.Endpoint.from_url(url)
        return _Place(technology, str(endpoint), endpoint)
    if technology == "postgres":
        from stem_actors.adapters import postgres

        database = postgres.Endpoint.from_url(url)
        return _Place(technology, str(database), database)
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or len(parts.path) < 2:
        raise ConfigError(
            f"a {scheme}: URL names a file by three slashes (relative, {scheme}:///stem.db) or four (absolute, {scheme}:////var/lib/stem.db)."
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"a {scheme}: URL takes no options after its path.")
    return _Place(technology, str(Path(unquote(parts.path[1:])).resolve()))


def _open(
    place: _Place, namespace: str, clock: Clock, synchronous: Synchronous, accept_data_loss: bool, identity: Identity
) -> Opened:
    match place.technology:
        case "memory":
            from stem_actors.adapters import memory

            return memory.MemoryServer(clock).namespace(namespace)
        case "redis":
            from stem_actors.adapters import redis

            assert isinstance(place.endpoint, redis.Endpoint)
            accepts = accept_data_loss or place.endpoint.accept_data_loss
            return redis.RedisSpace(replace(place.endpoint, accept_data_loss=accepts, identity=identity), namespace, clock)
        case "postgres":
            from stem_actors.adapters import postgres

            assert isinstance(place.endpoint, postgres.Endpoint)
            return postgres.PostgresSpace(replace(place.endpoint, identity=identity), namespace, clock)
        case _:
            from stem_actors.adapters import sqlite

            return sqlite.SqliteFile(Path(place.path), namespace, clock, synchronous)
