"""What a worker has told its node of its counters, and how fast its tasks end by queue.

It outlives the heartbeat, its only user: one that starts anew goes on where its predecessor stopped, or all would count twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any

from stem_actors.metrics import TABLE, Sample, Snapshot, Tally, growth

__all__ = ["Told"]

_WINDOW = 10.0  # seconds that a rate is taken over
_ENDS = {
    "stem_tasks_succeeded_total": "succeeded",
    "stem_tasks_failed_total": "failed",
    "stem_tasks_retried_total": "retried",
}
"""The counters of runs that ended, and their names in a heartbeat."""


class Told:
    """For the heartbeat's thread only. `queues`: those that are worked on."""

    def __init__(self, tallies: Sequence[Tally], queues: Sequence[str]) -> None:
        self._tallies = tallies
        self._sent: list[Snapshot] = [({}, {}) for _ in tallies]
        self._ended: defaultdict[str, Counter[str]] = defaultdict(Counter, {queue: Counter() for queue in queues})
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def growth(self) -> list[Sample]:
        """What the counters grew by since this was last called."""
        samples: list[Sample] = []
        for index, tally in enumerate(self._tallies):
            after = tally.snapshot()
            samples += growth(self._sent[index], after)
            self._sent[index] = after
        for name, labels, grown in samples:
            end = _ENDS.get(name)
            if end is not None:
                self._ended[labels[TABLE[name].labels.index("queue")]][end] += grown
        return samples

    def throughput(self, now: float) -> list[dict[str, Any]]:
        """Runs that ended, by queue, and how many did each second lately; None while that is not known."""
        self._seen.append((now, {queue: ended.total() for queue, ended in self._ended.items()}))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return [
            {
                "queue": queue,
                **{end: int(ended[end]) for end in _ENDS.values()},
                "perSecond": round((ended.total() - before.get(queue, 0)) / (now - since), 2) if now > since else None,
            }
            for queue, ended in sorted(self._ended.items())
        ]
