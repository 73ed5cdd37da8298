"""One look of `stem top` as a JSON document. Pure: what the screen shows is drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stem_actors.model.json_names import iso_time
from stem_cli.heartbeats import Beat
from stem_cli.watched import Watched

__all__ = ["frame"]


def frame(seen: Watched, namespace: str, broker: str, only: Sequence[str] = ()) -> dict[str, Any]:
    """Everything there is; `only`: of workers just these. `missing` are those of them that have sent no heartbeat lately."""
    beats = [beat for beat in seen.beats if not only or beat.worker_id in only]
    workers = [_worker(beat) for beat in beats]
    return {
        "timestamp": iso_time(seen.now),
        "namespace": namespace,
        "broker": broker,
        "nodes": _nodes(workers),
        "workers": workers,
        "queues": [queue.as_json() for queue in seen.queues],
        "running": sorted((run for beat in beats for run in _runs(beat)), key=lambda run: -run["runtimeMs"]),
        "missing": sorted(set(only) - {beat.worker_id for beat in beats}),
    }


def _worker(beat: Beat) -> dict[str, Any]:
    extras = beat.extras
    return {
        "workerId": beat.worker_id,
        "node": _node(beat),
        "host": extras.get("host"),
        "pid": extras.get("pid"),
        "state": extras.get("state"),
        "readyReason": extras.get("readyReason"),
        "stale": beat.is_stale,
        "ageMs": round(beat.age * 1000),
        "running": beat.document.get("isolateCount", 0),
        "concurrency": extras.get("concurrency"),
        "inflight": beat.document.get("inflight", 0),
        "completed": extras.get("completed"),
        "perSecond": _rate(beat.throughput),
        "uptimeMs": extras.get("uptimeMs"),
        "queues": sorted((extras.get("subscriptions") or {}).get("queues") or ()),
        "tree": extras.get("tree") or [],
        "executors": extras.get("executors") or [],
    }


def _node(beat: Beat) -> str:
    """Whose worker it is. One of an older version does not say so, but its name begins with its node's."""
    return str(beat.extras.get("node") or beat.worker_id.rpartition("-")[0] or beat.worker_id)


def _rate(throughput: Sequence[Mapping[str, Any]]) -> float | None:
    rates = [each["perSecond"] for each in throughput if each["perSecond"] is not None]
    return round(sum(rates), 2) if rates else None


def _nodes(workers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    by_node: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for worker in workers:
        by_node.setdefault((worker["node"], worker["host"] or ""), []).append(worker)
    return [
        {
            "node": node,
            "host": host or None,
            "workers": len(its),
            "ready": sum(1 for worker in its if worker["state"] == "ready" and not worker["stale"]),
            "running": sum(worker["running"] for worker in its),
            "concurrency": sum(worker["concurrency"] or 0 for worker in its),
            "inflight": sum(worker["inflight"] for worker in its),
        }
        for (node, host), its in sorted(by_node.items())
    ]


def _runs(beat: Beat) -> list[dict[str, Any]]:
    """What it ran when it sent that, for as long as that is by now; who knows what a worker does that is silent for too long."""
    since = 0.0 if beat.is_stale else beat.age
    return [
        {
            "task": run.get("task"),
            "id": run.get("id"),
            "queue": run.get("queue"),
            "attempt": run.get("attempt"),
            "worker": beat.worker_id,
            "runtimeMs": run.get("runtimeMs", 0) + round(since * 1000),
        }
        for run in beat.extras.get("active") or ()
    ]
