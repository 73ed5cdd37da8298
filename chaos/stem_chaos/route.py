"""The way to a broker that a URL names, where a proxy can stand in it: by TCP or a socket, not over TLS, which names its host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from stem_actors.adapters import SCHEMES, postgres
from stem_chaos.link import Address

__all__ = ["Route", "route_of"]


@dataclass(frozen=True, slots=True)
class Route:
    """`target` is where the broker listens; `through` gives the URL for a proxy that listens on a port of this host."""

    target: Address
    through: Callable[[int], str]


def route_of(url: str) -> Route | None:
    """The way that a URL takes; None where no proxy can stand."""
    scheme = urlsplit(url).scheme.lower()
    if scheme == "redis":
        parts = urlsplit(url)
        return Route((parts.hostname or "localhost", parts.port or 6379), lambda port: _over(url, port))
    if scheme == "unix":
        return Route(unquote(urlsplit(url).path), lambda port: _instead_of_socket(url, port))
    return _postgres_route(url) if SCHEMES.get(scheme) == "postgres" else None


def _postgres_route(url: str) -> Route | None:
    endpoint = postgres.Endpoint.from_url(url)
    known = dict(endpoint.parameters)
    host, port = known.get("host", ""), known.get("port", "5432")
    if endpoint.asks_for_tls or not host or "," in host:
        return None
    target: Address = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port))
    return Route(target, lambda port: _over(url, port, leaves_out=("host", "port", "hostaddr")))


def _over(url: str, port: int, leaves_out: tuple[str, ...] = ()) -> str:
    """The same URL, but for its host."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    query = urlencode([each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in leaves_out])
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}", query=query).geturl()


def _instead_of_socket(url: str, port: int) -> str:
    options = dict(parse_qsl(urlsplit(url).query))
    database, query = options.pop("db", "0"), urlencode(options)
    return f"redis://127.0.0.1:{port}/{database}{'?' if query else ''}{query}"
