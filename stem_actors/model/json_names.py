"""The one table between our names and those in JSON for people and programs: snake_case here and on the wire, camelCase there.

Also how times look there: ISO-8601, UTC, milliseconds.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from stem_actors.errors import UsageError

__all__ = ["JSON_NAMES", "iso_time", "json_name", "parse_time", "to_json"]

JSON_NAMES: Mapping[str, str] = {
    # envelope, state
    "enqueued_at": "enqueuedAt",
    "not_before": "notBefore",
    "expires_at": "expiresAt",
    "max_retries": "maxRetries",
    "visibility_timeout": "visibilityTimeout",
    "delivery_count": "deliveryCount",
    "hand_backs": "handBacks",
    "replay_count": "replayCount",
    "last_replay_at": "lastReplayAt",
    "replayed_at_attempt": "replayedAtAttempt",
    # task record
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "started_at": "startedAt",
    "completed_at": "completedAt",
    "failed_at": "failedAt",
    "retry_delay_ms": "retryDelayMs",
    "requested_by": "requestedBy",
    "issued_at": "issuedAt",
    "task_id": "taskId",
    # dead letters, queues
    "dead_at": "deadAt",
    "next_offset": "nextOffset",
    "oldest_ms": "oldestMs",
    # heartbeats
    "worker_id": "workerId",
    "isolate_count": "isolateCount",
    "executor_count": "executorCount",
    "last_lease_renewal": "lastLeaseRenewal",
    "max_concurrency": "maxConcurrency",
    "uptime_ms": "uptimeMs",
    "memory_bytes": "memoryBytes",
    "memory_max_bytes": "memoryMaxBytes",
    "memory_percent": "memoryPercent",
    "load_avg": "loadAvg",
    "cpu_count": "cpuCount",
    "queue_depth": "queueDepth",
    "paused_queues": "pausedQueues",
    "ready_reason": "readyReason",
    # control
    "request_id": "requestId",
    "latest_version": "latestVersion",
}


def json_name(name: str) -> str:
    """The name in JSON. A name that is the same in both is not in the table."""
    return JSON_NAMES.get(name, name)


def iso_time(seconds: float | None) -> str | None:
    """`2025-01-01T00:00:00.000Z` for seconds since the epoch."""
    if seconds is None:
        return None
    moment = dt.datetime.fromtimestamp(round(seconds * 1000) / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """Seconds since the epoch of an ISO-8601 time; without a zone it is UTC."""
    try:
        moment = dt.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise UsageError(f"{text!r} is no ISO-8601 time such as 2025-01-31T08:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def to_json(value: Any) -> Any:
    """Maps, in lists and maps too, with our names turned into those of JSON. Not for maps whose keys are a user's."""
    if isinstance(value, Mapping):
        return {json_name(name): to_json(each) for name, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, list | tuple) else value
