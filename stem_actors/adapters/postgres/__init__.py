"""Postgres 12 or newer: several hosts, one server, and tasks enqueued inside the caller's own transactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from stem_actors.adapters.postgres import errors, namespaces, schema
from stem_actors.adapters.postgres.broker import PostgresBroker
from stem_actors.adapters.postgres.connection import MIGRATION_TIMEOUT, Database, connection_class, driver
from stem_actors.adapters.postgres.control import PostgresControl
from stem_actors.adapters.postgres.endpoint import Endpoint
from stem_actors.adapters.postgres.heartbeats import PostgresHeartbeats
from stem_actors.adapters.postgres.locks import PostgresLocks
from stem_actors.adapters.postgres.pauses import PostgresPauses
from stem_actors.adapters.postgres.rate_limits import PostgresRateLimits
from stem_actors.adapters.postgres.results import PostgresResults
from stem_actors.adapters.postgres.revocations import PostgresRevocations
from stem_actors.adapters.postgres.schema import VERSION, Standing
from stem_actors.adapters.postgres.server import ServerReport, examine
from stem_actors.clock import Clock
from stem_actors.errors import StemError
from stem_actors.model.lapse import Retention

__all__ = [
    "VERSION",
    "Endpoint",
    "PostgresSpace",
    "ServerReport",
    "Standing",
    "count",
    "forget",
    "look_at",
    "migrate",
    "migration_sql",
    "standing",
]


class PostgresSpace:
    """One namespace of one schema; its stores share this process's connections."""

    def __init__(self, endpoint: Endpoint, namespace: str, clock: Clock) -> None:
        self.database = Database(endpoint, clock)
        self._namespace = namespace

    def broker(self, retention: Retention) -> PostgresBroker:
        return PostgresBroker(self.database, self._namespace, retention)

    def results(self, ttl: float) -> PostgresResults:
        return PostgresResults(self.database, self._namespace, ttl)

    def revocations(self) -> PostgresRevocations:
        return PostgresRevocations(self.database, self._namespace)

    def pauses(self) -> PostgresPauses:
        return PostgresPauses(self.database, self._namespace)

    def locks(self) -> PostgresLocks:
        return PostgresLocks(self.database, self._namespace)

    def rate_limits(self) -> PostgresRateLimits:
        return PostgresRateLimits(self.database, self._namespace)

    def heartbeats(self) -> PostgresHeartbeats:
        return PostgresHeartbeats(self.database, self._namespace)

    def control(self) -> PostgresControl:
        return PostgresControl(self.database, self._namespace)


def look_at(endpoint: Endpoint) -> ServerReport | None:
    """What the server is that a health check asks about; None when it does not say."""
    try:
        with _connected(endpoint) as connection:
            return examine(connection)
    except StemError:
        return None


def standing(endpoint: Endpoint) -> Standing:
    """Where a schema stands; raises as every use of a store does."""
    with _connected(endpoint) as connection:
        return schema.standing(connection, endpoint.schema)


def migrate(endpoint: Endpoint) -> Standing:
    """Bring a schema up to date; where it stands then."""
    with _connected(endpoint) as connection:
        return schema.migrate(connection, endpoint.schema)


def migration_sql(endpoint: Endpoint, after: int) -> str:
    """The SQL that does so from version `after` on, for people to run."""
    return schema.script(after, endpoint.schema)


def count(endpoint: Endpoint, namespace: str, tables: Iterable[str]) -> tuple[int, int]:
    """The rows of a namespace in these tables, and the bytes of all tables of its schema."""
    with _connected(endpoint) as connection:
        return namespaces.count(connection, endpoint.schema, namespace, tables)


def forget(endpoint: Endpoint, namespace: str) -> None:
    """Delete all of a namespace that nobody uses any more."""
    with _connected(endpoint) as connection:
        namespaces.forget(connection, endpoint.schema, namespace)


@contextmanager
def _connected(endpoint: Endpoint) -> Iterator[Any]:
    psycopg = driver()
    try:
        with connection_class().connect(**endpoint.connection_parameters("stem-db"), autocommit=True) as connection:
            connection.patience = MIGRATION_TIMEOUT
            yield connection
    except psycopg.Error as error:
        raise errors.translated(error, endpoint) from error
