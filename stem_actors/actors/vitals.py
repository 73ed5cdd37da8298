"""What the actors of a worker last got done, for readiness and heartbeats.

Plain fields, each written by the one actor that its comment names and read by anybody: a message per fetch would cost the hot
path a thread switch each time. What a worker was told stands here as well, since it has to outlive the actor that it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Vitals"]


@dataclass(slots=True)
class Vitals:
    """Times are `Clock.monotonic()`, 0: never yet. `broker_errors` has an entry while an actor does not reach the broker."""

    received_at: float = 0.0  # consumer: the last answer of the broker to a fetch
    renewed_at: float = 0.0  # lease renewer: the last renewal that was answered, or found nothing to renew
    swept_at: float = 0.0  # housekeeper
    settled_at: float = 0.0  # settler
    broker_errors: dict[str, str] = field(default_factory=dict)  # each actor its own key
    reconnects: int = 0
    snapshot: Mapping[str, Any] = field(default_factory=dict)  # heartbeat: what it last said of this worker
    paused: frozenset[str] = frozenset()  # revoke listener: which of this worker's queues are paused
    concurrency: int = 1  # autoscaler, or revoke listener where there is none: executors of each kind
