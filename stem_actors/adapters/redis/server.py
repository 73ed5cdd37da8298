"""What a Redis server is: version, persistence, eviction, memory, clock; and for each that may lose tasks, the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ServerReport", "examine"]


@dataclass(frozen=True, slots=True)
class ServerReport:
    """`memory_left` in bytes, None without a limit; `clock_offset`: how many seconds the server's clock is ahead of ours."""

    version_text: str
    persistence: str
    eviction: str
    memory_left: int | None
    clock_offset: float
    notes: list[str] = field(default_factory=list)

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version_text.split(".") if part.isdigit())

    @property
    def can_drop_tasks(self) -> bool:
        """Keys without a time to live may be evicted, and tasks have none."""
        return self.eviction.startswith("allkeys-") and self.memory_left is not None


def examine(connection: Any, now: float) -> ServerReport | None:
    """Ask a server what it is; None when it does not say."""
    from redis.exceptions import ResponseError

    try:
        connection.send_command("INFO", check_health=False)
        facts = _facts(connection.read_response())
        connection.send_command("TIME", check_health=False)
        seconds, microseconds = connection.read_response()
    except ResponseError:
        return None
    eviction = facts.get("maxmemory_policy", "noeviction")
    limit = int(facts.get("maxmemory", "0") or 0)
    report = ServerReport(
        facts.get("redis_version", "0"),
        _persistence(facts),
        eviction,
        limit - int(facts.get("used_memory", "0")) if limit else None,
        int(seconds) + int(microseconds) / 1e6 - now,
    )
    report.notes.extend(_notes(report, facts))
    return report


def _facts(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _persistence(facts: dict[str, str]) -> str:
    if facts.get("aof_enabled") == "1":
        return "aof"
    return "rdb" if int(facts.get("rdb_last_save_time", "0") or 0) and facts.get("rdb_saves", "0") != "0" else "none or rdb"


def _notes(report: ServerReport, facts: dict[str, str]) -> list[str]:
    notes = []
    if report.persistence != "aof":
        notes.append("a restart of the server may lose tasks; set appendonly yes there.")
    if report.eviction != "noeviction":
        notes.append(f"maxmemory-policy is {report.eviction}; set maxmemory-policy noeviction there.")
    if facts.get("role") == "slave":
        notes.append("it is a replica and takes no tasks; name the primary in the URL.")
    if abs(report.clock_offset) > 30:
        notes.append(f"its clock is {report.clock_offset:+.0f} s from this host's; let both follow NTP.")
    return notes
