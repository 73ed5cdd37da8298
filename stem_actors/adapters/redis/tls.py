"""TLS to Redis: connections that trust whom our `Identity` says, and what to tell an operator when a handshake fails."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

from stem_actors.adapters.handshake import (
    Certificate,
    HandshakeFailed,
    any_trusting_context,
    read_certificate,
    remedy_for,
    what_was_wrong,
)
from stem_actors.adapters.tls import ALLOW_INSECURE, Identity
from stem_actors.errors import ConfigError

if TYPE_CHECKING:
    from stem_actors.adapters.redis.endpoint import Endpoint

__all__ = ["Certificate", "HandshakeFailed", "explained", "secured"]

_logger = logging.getLogger("stem.tls")

LOOK_TIMEOUT = 3.0  # seconds for a second look at the certificate of a server that was not trusted


def secured(connection: type[Any], identity: Identity) -> type[Any]:
    """The client library's TLS connection with a context of ours: its own would trust the system's authorities as well."""

    class SecuredConnection(connection):  # type: ignore[misc]  # a base that is only known once the library is there
        def _wrap_socket_with_ssl(self, sock: socket.socket) -> ssl.SSLSocket:
            try:
                if identity.allow_insecure:
                    _logger.warning("%s:%s: its certificate is not verified (%s).", self.host, self.port, ALLOW_INSECURE)
                return identity.context().wrap_socket(sock, server_hostname=self.host)
            except ConfigError:
                sock.close()  # the library closes it for errors it knows
                raise

    return SecuredConnection


# ---------------------------------------------------------------- when it fails


def explained(error: Exception, endpoint: Endpoint) -> Exception:
    """What to raise for a connection that failed: where the handshake did, with the certificate and the remedy."""
    cause, identity = _tls_error(error), endpoint.identity
    if cause is None:
        if "Timeout connecting" in str(error):
            remedy = "Where the server does not speak TLS on this port, use redis:// or its TLS port."
            return HandshakeFailed(endpoint, "no answer to it", None, identity, remedy)
        return error
    _logger.warning(
        "TLS handshake with %s failed: %s",
        endpoint,
        cause,
        extra={
            "subsystem": "tls",
            "host": endpoint.host,
            "port": endpoint.port,
            "ca_certificate": identity.ca_cert or "system",
            "client_certificate": identity.client_cert or "not provided",
            "allow_insecure": identity.allow_insecure,
        },
    )
    remedy = remedy_for(cause, identity, "redis://")
    return HandshakeFailed(endpoint, what_was_wrong(cause), _presented(endpoint, identity), identity, remedy)


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The reason among the reasons. A server that wants a client certificate says so, or just closes."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _presented(endpoint: Endpoint, identity: Identity) -> Certificate | None:
    """The certificate the server shows, found out by a second handshake that trusts anybody."""
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), LOOK_TIMEOUT) as plain,
            any_trusting_context(identity).wrap_socket(plain, server_hostname=endpoint.host) as secure,
        ):
            return read_certificate(secure.getpeercert(binary_form=True))
    except (OSError, ssl.SSLError):
        return None
