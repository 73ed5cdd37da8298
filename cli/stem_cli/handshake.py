"""What a TLS handshake with a server settled on: version, cipher, and the certificate that the server showed."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from stem_actors.adapters.redis import Endpoint
from stem_cli.checks import Check, fine, warned

__all__ = ["handshake_check"]

_SOON = 30  # days


def handshake_check(component: str, endpoint: Endpoint, timeout: float) -> Check | None:
    """Shake hands once more and look at the result; None when that fails, which the round trip has explained then."""
    try:
        with (
            socket.create_connection((endpoint.host, endpoint.port), timeout) as plain,
            endpoint.identity.context().wrap_socket(plain, server_hostname=endpoint.host) as secured,
        ):
            certificate: dict[str, Any] | None = secured.getpeercert()
            protocol, cipher = secured.version(), secured.cipher()
    except OSError:
        return None
    name = f"{component}-tls"
    facts: dict[str, object] = {"endpoint": str(endpoint), "protocol": protocol, "cipher": cipher and cipher[0]}
    said = f"{facts['protocol']}, {facts['cipher']}"
    if not certificate:
        return warned(
            name,
            f"{said}; whoever answers is trusted",
            "unset STEM_TLS_ALLOW_INSECURE, and name the authority: STEM_TLS_CA_CERT",
            **facts,
        )
    ends = str(certificate["notAfter"])
    left = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400
    subject, issuer = _name(certificate.get("subject", ())), _name(certificate.get("issuer", ()))
    names = [value for _, value in certificate.get("subjectAltName", ())]
    facts |= {"subject": subject, "issuer": issuer, "names": names, "validFrom": certificate["notBefore"], "validTo": ends}
    said = f"{said}; certificate of {subject} by {issuer} for {', '.join(map(str, names))}, valid for {left:.0f} days more"
    if left < _SOON:
        return warned(name, said, "renew the server's certificate", **facts)
    return fine(name, said, **facts)


def _name(parts: Any) -> str:
    """`commonName=cache, organizationName=Shop`."""
    return ", ".join(f"{key}={value}" for part in parts for key, value in part)
