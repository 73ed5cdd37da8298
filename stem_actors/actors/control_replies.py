"""What a worker answers to `ping`, `stats` and `inspect`: pure functions over its last heartbeat.

A heartbeat is at most a second old, so answering costs the other actors nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stem_actors.model.control import ControlCommand
from stem_actors.model.json_names import iso_time, parse_time
from stem_actors.ports import Revocation

__all__ = ["inspect_reply", "pause_reply", "ping_reply", "queue_status_reply", "revoke_reply", "stats_reply"]


def ping_reply(snapshot: Mapping[str, Any], now: float) -> dict[str, Any]:
    extras = _extras(snapshot)
    queues = _queues(extras)
    return {
        "timestamp": iso_time(now),
        "queue": queues[0] if queues else None,
        "inflight": snapshot.get("inflight", 0),
        "state": extras.get("state"),
        "subscriptions": extras.get("subscriptions", {}),
    }


def stats_reply(snapshot: Mapping[str, Any], now: float, renewed_ago: float | None) -> dict[str, Any]:
    """`renewed_ago`: seconds since a lease was last renewed."""
    extras = _extras(snapshot)
    names = (
        "host",
        "pid",
        "incarnation",
        "concurrency",
        "maxConcurrency",
        "prefetch",
        "uptimeMs",
        "executors",
        "completed",
    )
    return {
        **ping_reply(snapshot, now),
        "namespace": snapshot.get("namespace"),
        **{name: extras[name] for name in names if name in extras},
        "autoscaleEnabled": extras.get("autoscale", False),
        "pausedQueues": list(extras.get("paused_queues", ())),
        "readyReason": extras.get("ready_reason"),
        "queues": {each["name"]: each["inflight"] for each in snapshot.get("queues", ())},
        "active": list(extras.get("active", ())),
        "lastLeaseRenewalMsAgo": None if renewed_ago is None else round(renewed_ago * 1000),
        "lastQueueDepth": extras.get("queueDepth"),
    }


def inspect_reply(snapshot: Mapping[str, Any], now: float, revoked: Sequence[Revocation] | None) -> dict[str, Any]:
    """`revoked` None: not asked for."""
    renewed = snapshot.get("lastLeaseRenewal")
    ago = None if renewed is None else max(0, round(1000 * (now - parse_time(renewed))))
    reply: dict[str, Any] = {
        "timestamp": iso_time(now),
        "inflight": snapshot.get("inflight", 0),
        "active": [{**run, "status": "running", "lastLeaseRenewalMsAgo": ago} for run in _extras(snapshot).get("active", ())],
        "pausedQueues": list(_extras(snapshot).get("paused_queues", ())),
    }
    if revoked is not None:
        reply["revoked"] = [_entry(each) for each in revoked]
    return reply


def revoke_reply(
    snapshot: Mapping[str, Any], asked: Sequence[str], applied: Mapping[str, Revocation], latest: int, now: float
) -> dict[str, Any]:
    """`asked`: the ids that the command names; `applied`: what this worker knows to be revoked."""
    expired = [task_id for task_id in asked if (each := applied.get(task_id)) is not None and _is_past(each, now)]
    tasks = [task_id for task_id in asked if task_id in applied and task_id not in expired]
    running = {run["id"] for run in _extras(snapshot).get("active", ())}
    return {
        "tasks": tasks,
        "revoked": len(tasks),
        "inflight": [task_id for task_id in tasks if task_id in running],
        "ignored": [task_id for task_id in asked if task_id not in applied],
        "expired": expired,
        "latestVersion": latest,
        "namespace": snapshot.get("namespace"),
    }


def pause_reply(
    namespace: str, command: ControlCommand, changed: frozenset[str], paused: frozenset[str], stored: frozenset[str]
) -> dict[str, Any]:
    """`changed` and `paused` are queues of this worker, `stored` all that are paused, whoever works on them.

    `persisted` is false where the store says otherwise than the command: it was not stored first, or is outdated already.
    """
    asked = _asked_queues(command.payload)
    return {
        "queues": asked,
        "updated": sorted(changed.intersection(asked)),
        "persisted": stored.issuperset(asked) if command.type == "queue_pause" else stored.isdisjoint(asked),
        "paused": sorted(paused),
        "namespace": namespace,
    }


def queue_status_reply(snapshot: Mapping[str, Any], namespace: str, paused: frozenset[str]) -> dict[str, Any]:
    return {"namespace": namespace, "paused": sorted(paused), "subscriptions": _extras(snapshot).get("subscriptions", {})}


def _asked_queues(payload: Mapping[str, Any]) -> list[str]:
    named = payload.get("queues")
    return [each for each in (named if isinstance(named, list) else [payload.get("queue")]) if isinstance(each, str)]


def _extras(snapshot: Mapping[str, Any]) -> Mapping[str, Any]:
    extras: Mapping[str, Any] = snapshot.get("extras", {})
    return extras


def _queues(extras: Mapping[str, Any]) -> Sequence[str]:
    queues: Sequence[str] = extras.get("subscriptions", {}).get("queues", ())
    return queues


def _is_past(revocation: Revocation, now: float) -> bool:
    return revocation.expires_at is not None and revocation.expires_at <= now


def _entry(revocation: Revocation) -> dict[str, Any]:
    return {
        "taskId": revocation.task_id,
        "terminate": revocation.terminate,
        "reason": revocation.reason,
        "requestedBy": revocation.requested_by,
        "issuedAt": iso_time(revocation.issued_at),
        "expiresAt": iso_time(revocation.expires_at),
        "version": revocation.version,
    }
