"""What to tell an operator when a TLS handshake fails: what was found wrong, what the server showed, and what to do."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from typing import Any

from stem_actors.adapters.tls import ALLOW_INSECURE, CA_CERT, CLIENT_CERT, CLIENT_KEY, Identity, certificate_fields
from stem_actors.errors import BrokerUnavailable

__all__ = ["Certificate", "HandshakeFailed", "any_trusting_context", "read_certificate", "remedy_for", "what_was_wrong"]


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

    def __init__(self, endpoint: object, check: str, certificate: Certificate | None, identity: Identity, remedy: str) -> None:
        shown = "The server showed no certificate that can be read." if certificate is None else str(certificate)
        super().__init__(f"{endpoint}: TLS handshake failed: {check}. {shown} {remedy}")
        self.endpoint = str(endpoint)
        self.check = check
        self.certificate = certificate
        self.identity = identity
        self.remedy = remedy


def what_was_wrong(error: ssl.SSLError) -> str:
    """In a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def remedy_for(error: ssl.SSLError, identity: Identity, without_tls: str) -> str:
    """A sentence. `without_tls`: what the URL begins with when there is none."""
    said = what_was_wrong(error).lower()
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
        return f"The server does not speak TLS on this port: use {without_tls}, or its TLS port."
    return f"Check {CA_CERT}, {CLIENT_CERT} and {CLIENT_KEY}; {ALLOW_INSECURE}=true skips verification for a short time."


def any_trusting_context(identity: Identity) -> ssl.SSLContext:
    """To see what a server shows that was not trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity.client_cert is not None:
        context.load_cert_chain(identity.client_cert, identity.client_key)
    return context


def read_certificate(raw: bytes | None) -> Certificate | None:
    """What a certificate says; None: there is none, or it cannot be read."""
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
