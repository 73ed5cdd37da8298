"""A broker that is away is a state, not a crash: how long an actor waits before it tries again, and who may know of it."""

from __future__ import annotations

import logging
import random

from stem_actors.actors.vitals import Vitals
from stem_actors.metrics import Tally

__all__ = ["Reconnect"]

_logger = logging.getLogger("stem.broker")
_FIRST = 0.05


class Reconnect:
    """One actor's tries. The delays grow, jittered, to at most a sixth of the visibility timeout and 5 s."""

    _random = random.Random()  # of all; a simulation gives each its own

    def __init__(self, actor: str, worker: str, visibility_timeout: float, vitals: Vitals, tally: Tally) -> None:
        self._actor = actor
        self._worker = worker
        self._most = min(5.0, visibility_timeout / 6)
        self._vitals = vitals
        self._tally = tally
        self._tries = 0

    @property
    def is_away(self) -> bool:
        return self._tries > 0

    def failed(self, error: Exception) -> float:
        """A try failed; seconds until the next."""
        if self._tries == 0:
            _logger.warning("%s: %s does not reach the broker: %s", self._worker, self._actor, error)
        self._tries += 1
        self._vitals.broker_errors[self._actor] = str(error)
        delay = min(self._most, _FIRST * 2.0 ** min(self._tries, 16))
        return delay * (0.5 + self._random.random() / 2)

    def succeeded(self) -> None:
        """A try got through."""
        if self._tries or self._actor in self._vitals.broker_errors:  # an earlier life of the actor may have left it there
            _logger.info("%s: %s reaches the broker again after %d tries", self._worker, self._actor, self._tries)
            self._tries = 0
            self._vitals.broker_errors.pop(self._actor, None)
            self._tally.count("stem_broker_reconnects_total", self._worker)
