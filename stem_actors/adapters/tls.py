"""Whom we trust over TLS and who we are, for every server: from `STEM_TLS_*`.

The files are read anew for each connection, so that new certificates count from the next one on.
"""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass
from typing import Any

from stem_actors.config import Settings
from stem_actors.errors import ConfigError

__all__ = ["ALLOW_INSECURE", "CA_CERT", "CLIENT_CERT", "CLIENT_KEY", "Identity", "certificate_fields"]

CA_CERT, CLIENT_CERT, CLIENT_KEY = "STEM_TLS_CA_CERT", "STEM_TLS_CLIENT_CERT", "STEM_TLS_CLIENT_KEY"
ALLOW_INSECURE = "STEM_TLS_ALLOW_INSECURE"


@dataclass(frozen=True, slots=True)
class Identity:
    """The four TLS settings: three paths, and whether anybody is trusted."""

    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    allow_insecure: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Identity:
        return cls(settings.tls_ca_cert, settings.tls_client_cert, settings.tls_client_key, settings.tls_allow_insecure)

    def context(self) -> ssl.SSLContext:
        """At least TLS 1.2. A CA file is trusted in place of the system's authorities.

        Raises:
            ConfigError: a file cannot be read, has expired or does not fit, or one of certificate and key is missing; it names
                the variable.
        """
        self._check_paths()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.allow_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_cert is None:
            context.load_default_certs()
        else:
            self._trust(context, self.ca_cert)
        if self.client_cert is not None:
            self._show(context, self.client_cert)
        return context

    def _check_paths(self) -> None:
        for name, path in ((CA_CERT, self.ca_cert), (CLIENT_CERT, self.client_cert), (CLIENT_KEY, self.client_key)):
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigError(f"{name} names {path}, which cannot be read.")
        if (self.client_cert is None) != (self.client_key is None):
            missing, given = (CLIENT_KEY, CLIENT_CERT) if self.client_key is None else (CLIENT_CERT, CLIENT_KEY)
            raise ConfigError(f"{given} is set and {missing} is not; a client certificate needs its key.")

    def _trust(self, context: ssl.SSLContext, path: str) -> None:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{CA_CERT} names {path}, which holds no certificates: {error}") from error
        ends = [str(each["notAfter"]) for each in context.get_ca_certs()]
        if ends and all(map(_is_past, ends)):
            raise ConfigError(f"{CA_CERT} names {path}, where every certificate has expired; the last one said {ends[-1]}.")

    def _show(self, context: ssl.SSLContext, path: str) -> None:
        try:
            context.load_cert_chain(path, self.client_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{CLIENT_CERT} and {CLIENT_KEY} do not fit each other, or are none: {error}") from error
        end = certificate_fields(path).get("notAfter")
        if end is not None and _is_past(str(end)):
            raise ConfigError(f"{CLIENT_CERT} names {path}, a certificate that expired on {end}.")


def certificate_fields(path: str) -> dict[str, Any]:
    """What a certificate in a file says of itself, whoever vouches for it. Empty: it cannot be read here."""
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)  # the standard library's only way to do it
    if decode is None:
        return {}
    try:
        fields: dict[str, Any] = decode(path)
    except (OSError, ssl.SSLError, ValueError):
        return {}
    return fields


def _is_past(date: str) -> bool:
    """`date` as OpenSSL writes it."""
    return ssl.cert_time_to_seconds(date) < time.time()
