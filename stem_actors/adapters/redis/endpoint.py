"""Where a Redis URL leads, and how to connect there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from stem_actors.adapters.redis import tls
from stem_actors.adapters.tls import Identity
from stem_actors.errors import ConfigError

__all__ = ["Endpoint"]

_OPTIONS = ("db", "wait_replicas", "accept_data_loss")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A database of a server. As text it holds no secret.

    `wait_replicas`     a publication returns only when so many replicas have it
    `accept_data_loss`  go on although the server may drop tasks when its memory is full
    `identity`          over TLS: whom we trust, and who we are
    """

    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    is_tls: bool = False
    wait_replicas: int = 0
    accept_data_loss: bool = False
    identity: Identity = field(default_factory=Identity)

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.is_tls else 'redis'}://{host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Read a URL with scheme `redis`, `rediss` or `unix`.

        Raises:
            ConfigError: it is not understood; the message holds no secret.
        """
        scheme = url.partition(":")[0].lower()
        form = "unix:///PATH?db=N" if scheme == "unix" else f"{scheme}://[[USER]:PASSWORD@]HOST[:PORT][/DB]"
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
            options = dict(parse_qsl(parts.query, strict_parsing=True) if parts.query else ())
            path = unquote(parts.path) if scheme == "unix" else ""
            db = _number(options.pop("db", "0") if scheme == "unix" else parts.path.strip("/") or options.pop("db", "0"))
            replicas, loss = _number(options.pop("wait_replicas", "0")), _flag(options.pop("accept_data_loss", "false"))
        except ValueError:
            raise ConfigError(f"a {scheme}: URL looks like {form}; options are {', '.join(_OPTIONS)}.") from None
        if options:
            raise ConfigError(f"a {scheme}: URL has no option {next(iter(options))!r}; there are {', '.join(_OPTIONS)}.")
        if parts.fragment or (scheme == "unix" and (len(path) < 2 or parts.hostname)):
            raise ConfigError(f"a {scheme}: URL looks like {form}.")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if scheme == "unix":
            return cls("", 0, path, db, username, password, False, replicas, loss)
        return cls(parts.hostname or "localhost", port, "", db, username, password, scheme == "rediss", replicas, loss)

    def connection(self, name: str, connect_timeout: float, timeout: float) -> Any:
        """A connection of the client library, not yet connected."""
        try:
            from redis.backoff import NoBackoff
            from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
            from redis.retry import Retry
        except ImportError:
            raise ConfigError("Redis stores need redis: pip install 'stem-actors[redis]'") from None
        common: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self.password,
            "client_name": name,
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            "retry": Retry(NoBackoff(), 0),  # a command whose answer was lost is never sent again from down there
            "retry_on_error": [],
            "protocol": 2,
            "decode_responses": False,
            "health_check_interval": 0,
        }
        if self.path:
            unix: Any = UnixDomainSocketConnection
            return unix(path=self.path, **common)
        kind: Any = tls.secured(SSLConnection, self.identity) if self.is_tls else Connection
        return kind(host=self.host, port=self.port, socket_keepalive=True, **common)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), False)
