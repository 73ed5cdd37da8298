"""Where a Postgres URL leads, and how to connect there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from stem_actors.adapters.tls import Identity
from stem_actors.config import parse_duration
from stem_actors.errors import ConfigError

__all__ = ["Endpoint"]

DEFAULT_SCHEMA = "stem"
POLL_INTERVAL = 0.5
_OPTIONS = ("schema", "poll_only", "poll_interval", "migrate")
_FORM = "postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE"
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

# In milliseconds where libpq has it so. A connection that somebody cut is noticed although nobody closed it.
_LIVELINESS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A schema of a database of a server. As text it holds no secret.

    `parameters`     libpq's, from the URL
    `poll_only`      keep nothing in the session (no LISTEN, no prepared statements), as a pooler like PgBouncer demands
    `poll_interval`  seconds between two looks of one who waits and whom nobody wakes
    `migrate`        bring the schema up to date at the first use; else it has to be, see `stem db`
    `identity`       over TLS: whom we trust, and who we are
    """

    parameters: tuple[tuple[str, str], ...]
    schema: str = DEFAULT_SCHEMA
    poll_only: bool = False
    poll_interval: float = POLL_INTERVAL
    migrate: bool = True
    asks_for_tls: bool = False
    identity: Identity = field(default_factory=Identity)

    def __str__(self) -> str:
        known = dict(self.parameters)
        hosts = known.get("host", "").split(",")
        ports = known.get("port", "").split(",")
        places = []
        for at, host in enumerate(hosts):
            port = ports[at] if len(ports) == len(hosts) else ports[0]
            shown = f"[{host}]" if ":" in host else host
            places.append(f"{shown or 'localhost'}:{port or 5432}")
        schema = "" if self.schema == DEFAULT_SCHEMA else f"?schema={self.schema}"
        return f"postgres://{','.join(places)}/{known.get('dbname', '')}{schema}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"

    @classmethod
    def from_url(cls, url: str) -> Endpoint:
        """Read a URL with scheme `postgres` or `postgresql`, or one of them with `+ssl`. What we do not know is libpq's.

        Raises:
            ConfigError: it is not understood; the message holds no secret.
        """
        scheme = url.partition(":")[0].lower()
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else ())
            userinfo, _, hosts = parts.netloc.rpartition("@")
            parameters = _places(hosts) | _user(userinfo)
            schema = options.pop("schema", DEFAULT_SCHEMA)
            if parts.fragment or not _SCHEMA.fullmatch(schema):
                raise ValueError(schema)
            poll_only = _BOOLEANS[options.pop("poll_only", "false").lower()]
            poll_interval = parse_duration(options.pop("poll_interval", f"{round(POLL_INTERVAL * 1000)}ms"))
            migrate = _BOOLEANS[options.pop("migrate", "true").lower()]
        except (ValueError, KeyError):
            own = ", ".join(_OPTIONS)
            raise ConfigError(f"a {scheme}: URL looks like {_FORM}; options of ours are {own}, all others libpq's.") from None
        if database := unquote(parts.path.strip("/")):
            parameters["dbname"] = database
        parameters |= options
        asks_for_tls = scheme.endswith("+ssl") or parameters.get("sslmode") in ("require", "verify-ca", "verify-full")
        if scheme.endswith("+ssl"):
            parameters.setdefault("sslmode", "verify-full")
        return cls(tuple(parameters.items()), schema, poll_only, max(0.01, poll_interval), migrate, asks_for_tls)

    def connection_parameters(self, purpose: str) -> dict[str, Any]:
        """For `psycopg.connect`. `purpose` shows in the server's list of connections."""
        parameters: dict[str, Any] = {**_LIVELINESS, "application_name": purpose, **dict(self.parameters)}
        if self.asks_for_tls:
            from stem_actors.adapters.postgres.tls import tls_parameters

            parameters |= tls_parameters(parameters, self.identity)
        return parameters


def _places(netloc: str) -> dict[str, str]:
    """Hosts and ports, of which there may be several."""
    hosts, ports = [], []
    for place in netloc.split(","):
        host, port = place, ""
        if match := re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]*)", place):
            host, port = match[1], match[2]
        if port and not 0 < int(port) < 65536:
            raise ValueError(port)
        if ":" in host and not host.startswith("["):
            raise ValueError(host)
        hosts.append(unquote(host.strip("[]")))
        ports.append(port)
    found = {}
    if any(hosts):
        found["host"] = ",".join(hosts)
    if any(ports):
        found["port"] = ",".join(ports)
    return found


def _user(userinfo: str) -> dict[str, str]:
    name, _, password = userinfo.partition(":")
    given = {"user": unquote(name), "password": unquote(password)}
    return {key: value for key, value in given.items() if value}
