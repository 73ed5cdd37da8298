"""A worker's heartbeat as its reader sees it: how old it is, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.model.json_names import iso_time, parse_time, to_json
from stem_cli.output import readable_duration

__all__ = ["Beat"]

_GRACE = 1.0  # seconds: how exactly a worker keeps its interval


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat, read at `now` (seconds, the store's clock). `document` is what its worker sent, names as in JSON."""

    worker_id: str
    document: Mapping[str, Any]
    now: float
    sent_at: float | None
    is_stale: bool

    @classmethod
    def read(cls, heartbeat: Mapping[str, Any], now: float, expected: float | None, default: float) -> Beat:
        """Stale is what is older than `expected`; when that is None, than the worker's own interval, or else `default`."""
        document: dict[str, Any] = to_json(heartbeat)
        sent_at = _seconds(document.get("timestamp"))
        own = (document.get("extras") or {}).get("heartbeatIntervalMs")
        interval = expected if expected is not None else own / 1000 if isinstance(own, int) else default
        is_stale = bool(interval) and sent_at is not None and now - sent_at > interval + _GRACE
        return cls(str(document.get("workerId")), {**document, "timestamp": iso_time(sent_at)}, now, sent_at, is_stale)

    @property
    def age(self) -> float:
        return 0.0 if self.sent_at is None else max(0.0, self.now - self.sent_at)

    @property
    def extras(self) -> Mapping[str, Any]:
        return self.document.get("extras") or {}

    @property
    def state(self) -> str | None:
        """`ready`, or what else it is and why."""
        state, reason = self.extras.get("state"), self.extras.get("readyReason")
        return None if state is None else f"{state} ({reason})" if reason else str(state)

    @property
    def queues(self) -> str:
        """What it is subscribed to, for people."""
        return ", ".join((self.extras.get("subscriptions") or {}).get("queues") or ())

    @property
    def queue_names(self) -> set[str]:
        """Every queue it knows of: subscribed to, or with something in flight."""
        subscribed = (self.extras.get("subscriptions") or {}).get("queues") or ()
        return {*map(str, subscribed), *(str(each["name"]) for each in self.document.get("queues") or ())}

    @property
    def throughput(self) -> Sequence[Mapping[str, Any]]:
        """How runs ended by queue; a worker of an older version sends none."""
        return self.extras.get("throughput") or ()

    def as_json(self) -> dict[str, Any]:
        """What `--json` shows: what was sent, and whether it is too old."""
        return {**self.document, "stale": self.is_stale}

    def lines(self) -> list[str]:
        """For people: one line, and its details below."""
        beat = self.document
        stale = f" [stale {readable_duration(self.age)}]" if self.is_stale else ""
        head = (
            f"Worker {self.worker_id} (namespace: {beat.get('namespace')}) @ {beat['timestamp']} "
            f"isolate={beat.get('isolateCount', 0)} inflight={beat.get('inflight', 0)}{stale}"
        )
        renewed = _seconds(beat.get("lastLeaseRenewal"))
        details = {
            "state": self.state,
            "queues": self.queues,
            "paused": ", ".join(self.extras.get("pausedQueues") or ()),
            "broadcasts": ", ".join((self.extras.get("subscriptions") or {}).get("broadcasts") or ()),
            "lastLeaseRenewal": None if renewed is None else f"{readable_duration(self.now - renewed)} ago",
            "inflight": ", ".join(f"{each['name']}={each['inflight']}" for each in beat.get("queues") or ()),
        }
        return [head, *(f"  {name}: {text}" for name, text in details.items() if text)]


def _seconds(time: Any) -> float | None:
    """A time of a heartbeat in seconds: it may be milliseconds since the epoch or ISO-8601."""
    if isinstance(time, str):
        return parse_time(time)
    return time / 1000 if isinstance(time, int | float) else None
