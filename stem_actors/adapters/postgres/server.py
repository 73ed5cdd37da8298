"""What a Postgres server is: version, durability, connections, clock; and for each that may do harm, the remedy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ServerReport", "examine"]

FEW_CONNECTIONS = 10
LONG_TRANSACTION = 300.0  # seconds
MOST_APART = 30.0  # seconds between two clocks

_FACTS = """
    SELECT
        current_setting('server_version'), current_setting('fsync') = 'on', current_setting('synchronous_commit') <> 'off',
        current_setting('autovacuum') = 'on', pg_is_in_recovery(), current_setting('max_connections')::int,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int,
        (
            SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND backend_type = 'client backend'
        )::float8,
        extract(epoch FROM clock_timestamp())::float8
"""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What an operator wants to know before tasks go there. `notes` are remedies, one line each.

    `oldest_transaction`  seconds for which one has been open, that this user may know of
    `clock_offset`        how many seconds the server's clock is ahead of ours
    """

    version_text: str
    is_durable: bool
    connections: int
    connections_left: int
    oldest_transaction: float
    clock_offset: float
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        durable = "durable" if self.is_durable else "not durable"
        return (
            f"Postgres {self.version_text}, {durable}, {self.connections} connections and room for {self.connections_left}, "
            f"clock {self.clock_offset * 1000:+.0f} ms"
        )


def examine(connection: Any) -> ServerReport:
    """Ask a server what it is."""
    asked_at = time.time()
    version, fsync, waits, has_autovacuum, is_standby, most, connections, oldest, theirs = connection.execute(_FACTS).fetchone()
    report = ServerReport(
        version.split()[0], fsync and waits, connections, most - connections, oldest, theirs - (asked_at + time.time()) / 2
    )
    notes = report.notes
    if not report.is_durable:
        setting = "synchronous_commit" if fsync else "fsync"
        notes.append(f"{setting} is off, so a crash of the server may lose tasks; set {setting} = on there.")
    if not has_autovacuum:
        notes.append("autovacuum is off, so tables grow without end; set autovacuum = on there.")
    if is_standby:
        notes.append("it is a standby and takes no tasks; name the primary in the URL.")
    if report.connections_left < FEW_CONNECTIONS:
        notes.append(f"only {report.connections_left} connections are left; raise max_connections, or put a pooler before it.")
    if oldest > LONG_TRANSACTION:
        notes.append(f"a transaction has been open for {oldest / 60:.0f} min, which slows all queues down; end it.")
    if abs(report.clock_offset) > MOST_APART:
        notes.append(f"its clock is {report.clock_offset:+.0f} s from this host's; let both follow NTP.")
    return report
