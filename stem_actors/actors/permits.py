"""Permits: asks the limiter whether deliveries may run, and decides when it does not answer. For the settler."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from stem_actors.actors.catalogue import Rule
from stem_actors.actors.messages import Permit
from stem_actors.clock import Clock
from stem_actors.errors import StemError
from stem_actors.metrics import Tally
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Delivery
from stem_actors.model.outcome import Limited
from stem_actors.ports import RateLimiter

__all__ = ["Permits"]

_logger = logging.getLogger("stem.settler")
_SHORTEST_REST = 1.0
_SHARE = 10.0  # of the settler's time, a tenth at most is spent on a limiter that does not answer


class Permits:
    """One settler's way to the limiter. Where that fails, each limit says what holds: run anyway, or wait."""

    def __init__(self, limiter: RateLimiter, clock: Clock, worker: str, tally: Tally) -> None:
        self._limiter = limiter
        self._clock = clock
        self._worker = worker
        self._tally = tally
        self._rests_until = float("-inf")

    def ask(self, asked: Sequence[Permit]) -> Mapping[int | str, Limited | None]:
        """By lease token: None for those that may run."""
        waits = self._acquire(asked)
        if waits is None:
            return {delivery.lease.token: self._unasked(delivery, rules) for delivery, rules, _ in asked}
        return {
            delivery.lease.token: None if wait is None else Limited(wait)
            for (delivery, _, _), wait in zip(asked, waits, strict=True)
        }

    def _acquire(self, asked: Sequence[Permit]) -> list[float | None] | None:
        """None: no answer. Then it is left alone for a while, since others wait for the settler meanwhile."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return None
        try:
            return self._limiter.acquire(
                [[rule.asked(delivery, expected) for rule in rules] for delivery, rules, expected in asked]
            )
        except StemError as error:
            self._rest(began, error)
            return None

    def _rest(self, began: float, error: StemError) -> None:
        now = self._clock.monotonic()
        self._rests_until = now + max(_SHORTEST_REST, _SHARE * (now - began))
        _logger.warning("%s: the rate limiter does not answer: %s", self._worker, error)

    def free(self, places: Sequence[Place]) -> None:
        """They are nobody's any more. What cannot be freed now lapses by itself."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return
        try:
            self._limiter.release(places)
        except StemError as error:
            self._rest(began, error)

    def _unasked(self, delivery: Delivery, rules: Sequence[Rule]) -> Limited | None:
        for rule in rules:
            mode = "fail_open" if rule.fails_open else "fail_closed"
            self._tally.count("stem_rate_limiter_degraded_total", delivery.envelope.name, delivery.lease.queue, rule.scope, mode)
        return None if all(rule.fails_open for rule in rules) else Limited(None)
