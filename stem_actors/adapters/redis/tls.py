"""TLS to Redis: connections that trust whom our `Identity` says, and what to tell an operator when a handshake fails."""

from __future__ import annotations

import logging
import socket
import ssl
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stem_actors.adapters.tls import ALLOW_INSECURE, CA_CERT, CLIENT_CERT, CLIENT_KEY, Identity, certificate_fields
from stem_actors.errors import BrokerUnavailable, ConfigError

if TYPE_CHECKING:
    from stem_actors.adapters.redis.endpoint import Endpoint

__all__ = ["Certificate", "HandshakeFailed", "explained", "secured"]

_logger = logging.getLogger("stem.tls")

LOOK_TIMEOUT = 3.0  # seconds for a second look at the certificate of a server that was not trusted


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server's certificate says of itself; the dates as OpenSSL writes them."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    valid_from: str
    valid_to: str

    def __str__(self) -> str:
        return (
            f"Its certificate: subject {self.subject}, issuer {self.issuer}, names {', '.join(self.names) or 'none'}, "
            f"valid from {self.valid_from} to {self.valid_to}."
        )


class HandshakeFailed(BrokerUnavailable):
    """There is no TLS connection. As text it says all of this in a sentence each.

    `check`        what was found wrong, in a few words
    `certificate`  the server's; None: it showed none, or one that cannot be read
    `identity`     whom we trusted, and who we were
    """

    def __init__(self, endpoint: Endpoint, check: str, certificate: Certificate | None, identity: Identity, remedy: str) -> None:
        shown = "The server showed no certificate that can be read." if certificate is None else str(certificate)
        super().__init__(f"{endpoint}: TLS handshake failed: {check}. {shown} {remedy}")
        self.endpoint = str(endpoint)
        self.check = check
        self.certificate = certificate
        self.identity = identity
        self.remedy = remedy


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
    return HandshakeFailed(endpoint, _said(cause), _presented(endpoint, identity), identity, _remedy(cause, identity))


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The reason among the reasons. A server that wants a client certificate says so, or just closes."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _said(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def _remedy(error: ssl.SSLError, identity: Identity) -> str:
    said = _said(error).lower()
    if "expired" in said or "not yet valid" in said:
        return "Renew the server's certificate; connections made afterwards use it."
    if "hostname mismatch" in said or "ip address mismatch" in said:
        return "Use a host name that the certificate is for, or make one with this name among its alternative names."
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = identity.ca_cert or "the system's authorities"
        return f"It is not signed by {trusted}: set {CA_CERT} to the authority that signed it."
    if "certificate required" in said or "handshake failure" in said or "bad certificate" in said or "unknown ca" in said:
        return f"The server wants a client certificate that it trusts: set {CLIENT_CERT} and {CLIENT_KEY}."
    if "wrong version number" in said or "record layer" in said:
        return "The server does not speak TLS on this port: use redis://, or its TLS port."
    return f"Check {CA_CERT}, {CLIENT_CERT} and {CLIENT_KEY}; {ALLOW_INSECURE}=true skips verification for a short time."


def _presented(endpoint: Endpoint, identity: Identity) -> Certificate | None:
    """The certificate the server shows, found out by a second handshake that trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        if identity.client_cert is not None:
            context.load_cert_chain(identity.client_cert, identity.client_key)
        with (
            socket.create_connection((endpoint.host, endpoint.port), LOOK_TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=endpoint.host) as secure,
        ):
            raw = secure.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError):
        return None
    return _certificate(_decoded(raw)) if raw else None


def _decoded(raw: bytes) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ssl.DER_cert_to_PEM_cert(raw))
        file.flush()
        return certificate_fields(file.name)


def _certificate(fields: dict[str, Any]) -> Certificate | None:
    if not fields:
        return None
    return Certificate(
        _name(fields.get("subject")),
        _name(fields.get("issuer")),
        tuple(value for _, value in fields.get("subjectAltName", ())),
        str(fields.get("notBefore")),
        str(fields.get("notAfter")),
    )


def _name(parts: Any) -> str:
    return ", ".join(f"{key}={value}" for part in parts or () for key, value in part)
