"""TLS to Postgres: what libpq is told of our `Identity`, and what to tell an operator when a handshake fails.

libpq says little about a handshake that failed, so it is made once more by Python, which says all.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stem_actors.adapters.handshake import (
    Certificate,
    HandshakeFailed,
    any_trusting_context,
    read_certificate,
    remedy_for,
    what_was_wrong,
)
from stem_actors.adapters.tls import ALLOW_INSECURE, CLIENT_CERT, CLIENT_KEY, Identity

if TYPE_CHECKING:
    from stem_actors.adapters.postgres.endpoint import Endpoint

__all__ = ["explained", "tls_parameters"]

_logger = logging.getLogger("stem.tls")

LOOK_TIMEOUT = 3.0  # seconds for another look at a server that was not trusted
_NO_FILE = "/nonexistent"  # else libpq trusts, and insists on, what lies in the user's home directory
_ASK_FOR_TLS = struct.pack(">ii", 8, 80877103)


def tls_parameters(given: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    """libpq's parameters for TLS. What the URL says itself stands; the files are read anew for each connection.

    Raises:
        ConfigError: a file cannot be read, has expired or does not fit; it names the variable.
    """
    identity.context()
    found: dict[str, Any] = {"ssl_min_protocol_version": "TLSv1.2"}
    if identity.allow_insecure:
        _logger.warning("%s: its certificate is not verified (%s).", given.get("host", "localhost"), ALLOW_INSECURE)
        found |= {"sslmode": "require", "sslrootcert": _NO_FILE}
    elif "sslrootcert" not in given:
        if identity.ca_cert is not None:
            found["sslrootcert"] = identity.ca_cert
        elif given.get("sslmode") == "verify-full":
            found["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
    if identity.client_cert is not None and "sslcert" not in given:
        found |= {"sslcert": identity.client_cert, "sslkey": identity.client_key}
    return found


def explained(said: str, endpoint: Endpoint) -> Exception | None:
    """What to raise where libpq said this and the handshake was the reason; None: it was not."""
    identity = endpoint.identity
    if "client certificate" in said:
        remedy = f"The server wants a client certificate that it trusts: set {CLIENT_CERT} and {CLIENT_KEY}."
        return _failed(endpoint, "client certificate required", _presented(endpoint), remedy)
    if "server does not support SSL" in said:
        return _failed(endpoint, "the server speaks no TLS", None, "Switch it on there (ssl = on), or use postgres://.")
    if "SSL" not in said and "certificate" not in said:
        return None
    try:
        with _handshake(endpoint, identity.context()):
            check, remedy = (
                said,
                f"Check the files that the URL and the STEM_TLS_* variables name; {ALLOW_INSECURE}=true helps out.",
            )
    except ssl.SSLError as error:
        check, remedy = what_was_wrong(error), remedy_for(error, identity, "postgres://")
    except OSError:
        return None
    return _failed(endpoint, check, _presented(endpoint), remedy)


def _failed(endpoint: Endpoint, check: str, certificate: Certificate | None, remedy: str) -> HandshakeFailed:
    identity = endpoint.identity
    host, port = _address(endpoint)
    _logger.warning(
        "TLS handshake with %s failed: %s",
        endpoint,
        check,
        extra={
            "subsystem": "tls",
            "host": host,
            "port": port,
            "ca_certificate": identity.ca_cert or "system",
            "client_certificate": identity.client_cert or "not provided",
            "allow_insecure": identity.allow_insecure,
        },
    )
    return HandshakeFailed(endpoint, check, certificate, identity, remedy)


def _presented(endpoint: Endpoint) -> Certificate | None:
    """The certificate the server shows, found out by a handshake that trusts anybody."""
    try:
        with _handshake(endpoint, any_trusting_context(endpoint.identity)) as secure:
            return read_certificate(secure.getpeercert(binary_form=True))
    except OSError:
        return None


@contextmanager
def _handshake(endpoint: Endpoint, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    host, port = _address(endpoint)
    with socket.create_connection((host, port), LOOK_TIMEOUT) as plain:
        plain.sendall(_ASK_FOR_TLS)
        if plain.recv(1) != b"S":
            raise OSError("the server speaks no TLS")
        with context.wrap_socket(plain, server_hostname=host) as secure:
            yield secure


def _address(endpoint: Endpoint) -> tuple[str, int]:
    """Of the first host."""
    known = dict(endpoint.parameters)
    return known.get("host", "").split(",")[0] or "localhost", int(known.get("port", "").split(",")[0] or 5432)
