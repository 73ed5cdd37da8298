"""What a Redis or Postgres server is, and what should be seen to there before tasks are."""

from __future__ import annotations

from dataclasses import replace

from stem_actors.adapters import SCHEMES, postgres
from stem_actors.adapters.redis import Endpoint, ServerReport, look_at
from stem_actors.adapters.tls import Identity
from stem_actors.config import Settings
from stem_cli.store_facts import StoreFacts

__all__ = ["describe_postgres", "describe_server", "endpoint_of", "identity_facts", "postgres_endpoint_of"]


def endpoint_of(url: str, settings: Settings) -> Endpoint | None:
    """The server of a Redis URL; None for any other."""
    if SCHEMES.get(url.partition(":")[0].lower()) != "redis":
        return None
    return replace(Endpoint.from_url(url), identity=Identity.from_settings(settings))


def postgres_endpoint_of(url: str, settings: Settings) -> postgres.Endpoint | None:
    """The schema of a Postgres URL; None for any other."""
    if SCHEMES.get(url.partition(":")[0].lower()) != "postgres":
        return None
    return replace(postgres.Endpoint.from_url(url), identity=Identity.from_settings(settings))


def identity_facts(identity: Identity) -> dict[str, object]:
    """Whom we trust and who we are, as JSON names it."""
    return {
        "caCertificate": identity.ca_cert or "system",
        "clientCertificate": identity.client_cert or "not provided",
        "allowInsecure": identity.allow_insecure,
    }


def describe_server(endpoint: Endpoint, timeout: float, accepts_data_loss: bool) -> StoreFacts:
    """Ask the server, for `timeout` seconds a step at most; what it does not say is left out."""
    report = look_at(endpoint, timeout)
    hints = [_UNVERIFIED] if endpoint.is_tls and endpoint.identity.allow_insecure else []
    if report is None:
        return StoreFacts("", {"kind": "redis"}, hints)
    problem = ""
    if report.can_drop_tasks and not (accepts_data_loss or endpoint.accept_data_loss):
        problem = f"it drops tasks when its memory is full (maxmemory-policy {report.eviction})"
        hints.append(_DROPS_TASKS)
    return StoreFacts(f"({report})", _of_report(report), [*hints, *report.notes], problem)


def describe_postgres(url: str, settings: Settings) -> StoreFacts | None:
    """Ask the server of a Postgres URL; None for any other."""
    endpoint = postgres_endpoint_of(url, settings)
    if endpoint is None:
        return None
    report = postgres.look_at(endpoint)
    hints = [_UNVERIFIED] if endpoint.asks_for_tls and endpoint.identity.allow_insecure else []
    if report is None:
        return StoreFacts("", {"kind": "postgres"}, hints)
    values = {
        "kind": "postgres",
        "version": report.version_text,
        "schema": endpoint.schema,
        "isDurable": report.is_durable,
        "connections": report.connections,
        "connectionsLeft": report.connections_left,
        "oldestTransactionMs": round(report.oldest_transaction * 1000),
        "clockOffsetMs": round(report.clock_offset * 1000, 1),
    }
    return StoreFacts(f"({report})", values, [*hints, *report.notes])


_UNVERIFIED = "its certificate is not verified (allow insecure); leave that off in production"
_DROPS_TASKS = (
    "workers refuse to start there; set maxmemory-policy noeviction, or accept the loss with stem-node --accept-data-loss "
    "(STEM_ACCEPT_DATA_LOSS=true) or ?accept_data_loss=true in the URL"
)


def _of_report(report: ServerReport) -> dict[str, object]:
    return {
        "kind": "redis",
        "version": report.version_text,
        "persistence": report.persistence,
        "eviction": report.eviction,
        "canDropTasks": report.can_drop_tasks,
        "memoryUsedBytes": report.memory_used,
        "memoryLeftBytes": report.memory_left,
        "clockOffsetMs": round(report.clock_offset * 1000, 1),
    }
