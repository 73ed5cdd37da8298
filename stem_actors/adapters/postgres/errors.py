"""What we raise for an error of psycopg: who can act, the caller, the operator or a retry, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stem_actors.errors import BrokerUnavailable, ConfigError, StemError, StorageBroken, StorageFull

if TYPE_CHECKING:
    from stem_actors.adapters.postgres.endpoint import Endpoint

__all__ = ["CONTENT_ERRORS", "Undone", "Unstorable", "translated"]


class Unstorable(ValueError):
    """The server or its library will not take a value, whoever asks: the rest of the batch is not to blame."""


class Undone(Exception):
    """The server undid a transaction for the sake of another one. It can be repeated."""


CONTENT_ERRORS = (Unstorable, TypeError, ValueError, OverflowError)

_UNDONE = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available

_REMEDIES: dict[str, tuple[type[StemError], str]] = {
    "53100": (StorageFull, "Its disk is full: make room there; nothing was stored."),
    "58030": (StorageFull, "Its disk is failing: see the server's log; nothing was stored."),
    "53300": (BrokerUnavailable, "It has no connection left: raise max_connections there, or put a pooler before it."),
    "25006": (
        BrokerUnavailable,
        "It takes no writes, as a standby: name the primary in the URL, or wait for the failover to end.",
    ),
    "57P03": (BrokerUnavailable, "It is starting up or shutting down."),
    "42501": (StorageBroken, "Its role lacks a right: see `stem db sql`, or let the schema's owner run `stem db migrate`."),
    "42P01": (StorageBroken, "Part of our schema is gone: `stem db status` shows where it stands."),
    "3F000": (StorageBroken, "The schema is gone: `stem db migrate` makes it anew."),
}

# libpq gives the reason for a refused connection as text only. Where it is in another language there is no remedy, and no harm.
_REFUSALS: tuple[tuple[str, type[StemError], str], ...] = (
    ("password authentication failed", StorageBroken, "Check user and password in the URL."),
    ("no password supplied", StorageBroken, "The URL has no password, and the server wants one."),
    ("no pg_hba.conf entry", StorageBroken, "The server lets this user in from elsewhere or over TLS only: see its pg_hba.conf."),
    ("role ", StorageBroken, "Check the user in the URL."),
    ("too many clients", BrokerUnavailable, _REMEDIES["53300"][1]),
    ("remaining connection slots", BrokerUnavailable, _REMEDIES["53300"][1]),
    ("the database system is", BrokerUnavailable, _REMEDIES["57P03"][1]),
    ("database ", StorageBroken, "Make it (createdb), or name another in the URL."),
)


def translated(error: Exception, endpoint: Endpoint) -> Exception:
    """Ours for an error of psycopg or its pool; any other as it is."""
    from stem_actors.adapters.postgres.connection import driver

    psycopg = driver()
    if isinstance(error, UnicodeError):
        return Unstorable(f"{type(error).__name__}: {error}")
    if not isinstance(error, psycopg.Error):
        return error
    code = error.sqlstate or ""
    said = " ".join(str(error).split())
    if code in _UNDONE:
        return Undone(said)
    if code in _REMEDIES:
        kind, remedy = _REMEDIES[code]
        return kind(f"{endpoint}: {said}. {remedy}")
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError) or code[:2] in ("21", "22", "23", "54"):
        return Unstorable(f"{type(error).__name__}: {said}")
    if isinstance(error, psycopg.OperationalError):
        return _of_connection(error, said, endpoint)
    if isinstance(error, psycopg.ProgrammingError) and not code:
        if "adapt" in said:
            return Unstorable(said)
        return ConfigError(f"{endpoint}: the URL's options are not understood: {said}")
    return StorageBroken(f"{endpoint} refused a statement: {said}")


def _of_connection(error: Exception, said: str, endpoint: Endpoint) -> Exception:
    from stem_actors.adapters.postgres.tls import explained

    if endpoint.asks_for_tls and (failed := explained(said, endpoint)) is not None:
        return failed
    for phrase, kind, remedy in _REFUSALS:
        if f"FATAL: {phrase}" in said or (phrase[0].islower() and phrase in said and "FATAL" in said):
            return kind(f"{endpoint}: {said}. {remedy}")
    return BrokerUnavailable(f"{endpoint} does not answer: {said}")
