"""Removing a namespace from a server: one that a program made for itself and nobody else uses, for a benchmark or a chaos run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from stem_actors.adapters import postgres
from stem_actors.config import Settings
from stem_actors.errors import BrokerUnavailable
from stem_cli.server_facts import endpoint_of, postgres_endpoint_of

__all__ = ["RedisNamespace", "forget_namespace"]

_PAGE = 1000


def forget_namespace(settings: Settings) -> None:
    """Delete everything of it; nothing on SQLite, where such a program has a file of its own.

    Raises:
        BrokerUnavailable: the server does not answer.
    """
    place = postgres_endpoint_of(settings.broker_url, settings)
    if place is not None:
        postgres.forget(place, settings.namespace)
    elif endpoint_of(settings.broker_url, settings) is not None:
        with closing(RedisNamespace(settings)) as keys:
            keys.forget()


class RedisNamespace:
    """One connection to a Redis server, past Stem's stores, for the keys of one namespace."""

    def __init__(self, settings: Settings) -> None:
        endpoint = endpoint_of(settings.broker_url, settings)
        assert endpoint is not None
        self._namespace = settings.namespace
        self._name = str(endpoint)
        self._connection: Any = endpoint.connection("stem-namespace", 5.0, 10.0)

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

    def pages(self) -> Iterator[list[bytes]]:
        """All keys, in pages; one may come twice."""
        cursor = b"0"
        while True:
            cursor, keys = self.ask("SCAN", cursor, "MATCH", f"{self._namespace}:*", "COUNT", _PAGE)
            yield keys
            if cursor == b"0":
                return

    def forget(self) -> None:
        for page in self.pages():
            if page:
                self.ask("UNLINK", *page)
