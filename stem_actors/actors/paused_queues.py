"""Which of a worker's queues are paused: reads the store, keeps `Vitals.paused`, and says in the log who paused what and why.

For the revoke listener, which knows when to look.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from stem_actors.actors.vitals import Vitals
from stem_actors.ports import PauseStore

__all__ = ["PausedQueues"]

_logger = logging.getLogger("stem.control")


class PausedQueues:
    """The listener's view of the pauses. `stored` holds all of the namespace, by queue, as last read."""

    def __init__(self, store: PauseStore, queues: Sequence[str], worker: str, vitals: Vitals) -> None:
        self._store = store
        self._queues = queues
        self._worker = worker
        self._vitals = vitals
        self.stored = frozenset[str]()

    def read(self) -> frozenset[str]:
        """Look at the store. Returns those of this worker's queues for which something has changed."""
        pauses = {each.queue: each for each in self._store.paused()}
        self.stored = frozenset(pauses)
        before, after = self._vitals.paused, self.stored.intersection(self._queues)
        if before == after:
            return frozenset()
        self._vitals.paused = after
        for queue in sorted(after - before):
            pause = pauses[queue]
            by = f" by {pause.requested_by}" if pause.requested_by else ""
            why = f": {pause.reason}" if pause.reason else ""
            _logger.info("%s: queue %s is paused%s%s", self._worker, queue, by, why, extra=self._facts(queue))
        for queue in sorted(before - after):
            _logger.info("%s: queue %s is resumed", self._worker, queue, extra=self._facts(queue))
        if after.issuperset(self._queues):
            _logger.info("%s: all its queues are paused; it receives nothing", self._worker, extra={"worker": self._worker})
        return before ^ after

    def _facts(self, queue: str) -> dict[str, str]:
        return {"worker": self._worker, "queue": queue}
