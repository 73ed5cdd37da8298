"""What an operator watches: the workers of a namespace by their heartbeats, and its queues, read from the stores in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.config import Settings
from stem_actors.ports import QueueDepth, Stores
from stem_cli.heartbeats import Beat

__all__ = ["Queue", "Watched", "read_beats", "watch"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that holds something, or that somebody works on. `per_second`: runs that ended; None when nobody knows."""

    depth: QueueDepth
    is_paused: bool
    per_second: float | None

    def as_json(self) -> dict[str, Any]:
        """The shape of `stem queue list --json`, and the rate."""
        depth = self.depth
        return {
            "queue": depth.queue,
            "pending": depth.pending,
            "inflight": depth.inflight,
            "delayed": depth.delayed,
            "dead": depth.dead,
            "oldestMs": None if depth.oldest_age is None else round(depth.oldest_age * 1000),
            "paused": self.is_paused,
            "perSecond": self.per_second,
        }


@dataclass(frozen=True, slots=True)
class Watched:
    """All of it at `now` (seconds, the broker's clock)."""

    now: float
    beats: Sequence[Beat]
    queues: Sequence[Queue]


def read_beats(stores: Stores, now: float, settings: Settings, expected: float | None = None) -> list[Beat]:
    """The last heartbeat of each worker, sorted by id. `expected`: one that is older, in seconds, is stale."""
    return [Beat.read(each, now, expected, settings.heartbeat_interval) for each in stores.heartbeats.list_heartbeats()]


def watch(stores: Stores, settings: Settings) -> Watched:
    """Look at everything once.

    Raises:
        BrokerUnavailable: a store does not answer.
    """
    now = stores.broker.now()
    beats = read_beats(stores, now, settings)
    depths = {depth.queue: depth for depth in stores.broker.depths()}
    paused = {pause.queue for pause in stores.pauses.paused()}
    worked_on = {settings.default_queue, *settings.worker_queues, *(name for beat in beats for name in beat.queue_names)}
    fresh = [beat for beat in beats if not beat.is_stale]
    queues = [
        Queue(depths.get(name) or QueueDepth(name, 0, 0, 0, 0, None), name in paused, _rate(fresh, name))
        for name in sorted({*worked_on, *paused, *depths})
    ]
    return Watched(now, beats, queues)


def _rate(beats: Sequence[Beat], queue: str) -> float | None:
    rates = [
        each["perSecond"]
        for beat in beats
        for each in beat.throughput
        if each["queue"] == queue and each["perSecond"] is not None
    ]
    return round(sum(rates), 2) if rates else None
