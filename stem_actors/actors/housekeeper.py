"""The housekeeper: promotes what is due, gives back lapsed leases, forgets what is past its time. Every worker has one."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable, StorageFull
from stem_actors.metrics import Tally
from stem_actors.ports import Broker, ResultBackend, RevokeStore
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["Housekeeper"]

_logger = logging.getLogger("stem.housekeeper")

EVERY = 1.0
"""Seconds between two sweeps; the broker lets one take effect per half second, whoever comes."""
_TIDY_EVERY = 30
_MOST_PURGES = 8
"""Some thousands of records each: more than a worker can make in the second until the next sweep."""


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Time to sweep."""


class Housekeeper(StemActor):
    """Sweeps the broker each second, and sooner when a delayed message falls due.

    Owns:     nothing; whichever worker comes first does the work, by a time stamp at the broker.
    Receives: only its own ticks.      Tells: nobody; who waits for work is woken by the broker.
    """

    def __init__(
        self,
        context: ActorContext,
        broker: Broker,
        results: ResultBackend | None,
        revocations: RevokeStore,
        reconnect: Reconnect,
        vitals: Vitals,
        tally: Tally,
    ) -> None:
        super().__init__(context)
        self._broker = broker
        self._results = results
        self._revocations = revocations
        self._reconnect = reconnect
        self._vitals = vitals
        self._tally = tally
        self._rounds = 0
        self._finds_expired = False

    def on_start(self) -> None:
        self.after(0.0, _Sweep())

    def on_receive(self, message: _Sweep) -> None:
        try:
            swept = self._broker.sweep()
            self._rounds += 1
            if self._rounds % _TIDY_EVERY == 1 or self._finds_expired:
                self._tidy()
        except (BrokerUnavailable, StorageFull) as error:
            self.after(self._reconnect.failed(error), _Sweep())
            return
        self._reconnect.succeeded()
        self._vitals.swept_at = self.clock.monotonic()
        if swept.reclaimed or swept.poisoned:
            _logger.warning("gave back %d lapsed leases, set aside %d as poison", swept.reclaimed, swept.poisoned)
            self._tally.count("stem_redeliveries_total", "_all", "lapsed", by=swept.reclaimed)
        if swept.expired_dead_letters:
            _logger.warning("removed %d dead letters past their retention", swept.expired_dead_letters)
        for queue, replayed in swept.replayed.items():
            self._tally.count("stem_replay_count_total", queue, by=replayed)
        self.after(EVERY if swept.next_due is None else min(EVERY, max(0.02, swept.next_due)), _Sweep())

    def _tidy(self) -> None:
        """Forget what is past its time: seldom while there is nothing, each second and much at once while records expire."""
        self._finds_expired = False
        if self._results is not None:
            for _ in range(_MOST_PURGES):
                if not self._results.purge_expired():
                    break
                self._finds_expired = True
        try:
            self._revocations.prune_expired()
        except (BrokerUnavailable, StorageFull) as error:  # they may have a place of their own, and can wait
            _logger.info("expired revocations are not removed now: %s", error)
