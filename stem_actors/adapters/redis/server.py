"""What a Redis server is: version, persistence, eviction, memory, clock; and for each that may lose tasks, the remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ServerReport", "examine"]

LITTLE_MEMORY = 0.1  # of the limit
MOST_APART = 30.0  # seconds between two clocks


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What an operator wants to know before tasks go there. `notes` are remedies, one line each.

    `memory_used`, `memory_left`  bytes; None: there is no limit
    `clock_offset`                how many seconds the server's clock is ahead of ours
    """

    version_text: str
    persistence: str
    eviction: str
    memory_used: int
    memory_left: int | None
    clock_offset: float
    notes: list[str] = field(default_factory=list)

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version_text.split(".") if part.isdigit())

    def __str__(self) -> str:
        room = "no memory limit" if self.memory_left is None else f"{_mebibytes(self.memory_left)} of memory left"
        return (
            f"Redis {self.version_text}, persistence {self.persistence}, eviction {self.eviction}, {room}, "
            f"clock {self.clock_offset * 1000:+.0f} ms"
        )

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
    limit, used = int(facts.get("maxmemory", "0") or 0), int(facts.get("used_memory", "0"))
    report = ServerReport(
        facts.get("redis_version", "0"),
        _persistence(facts),
        eviction,
        used,
        max(0, limit - used) if limit else None,
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
    if report.version < (7, 0):
        notes.append(f"it is Redis {report.version_text}; Stem needs 7.0 or newer.")
    if report.persistence != "aof":
        notes.append("a restart of the server may lose tasks; set appendonly yes there.")
    if report.eviction != "noeviction":
        what = "tasks" if report.eviction.startswith("allkeys-") else "results"
        notes.append(f"maxmemory-policy is {report.eviction}, which drops {what}; set maxmemory-policy noeviction there.")
    if "err" in (facts.get("aof_last_write_status"), facts.get("rdb_last_bgsave_status")):
        notes.append("it could not write its data to disk; free disk space there and see its log.")
    if report.memory_left is not None and report.memory_left < LITTLE_MEMORY * (report.memory_used + report.memory_left):
        notes.append(f"only {_mebibytes(report.memory_left)} of its memory are left; raise maxmemory there, or remove data.")
    if facts.get("role") == "slave":
        notes.append("it is a replica and takes no tasks; name the primary in the URL.")
    if abs(report.clock_offset) > MOST_APART:
        notes.append(f"its clock is {report.clock_offset:+.0f} s from this host's; let both follow NTP.")
    return notes


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
