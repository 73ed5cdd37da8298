"""The lease renewer: extends the leases of everything in flight, from a process that runs no user code."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable, StemError, StorageFull
from stem_actors.metrics import Tally
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Lease
from stem_actors.ports import Broker, Done, RateLimiter, Stale
from stem_actors.supervision.base import ActorContext, StemActor
from stem_actors.supervision.mailbox import Timer

__all__ = ["LeaseRenewer"]

_logger = logging.getLogger("stem.renewer")

_PATIENCE = 1.0
"""Seconds to wait for the pool's answer before asking again: it may be restarting."""


@dataclass(frozen=True, slots=True)
class _Round:
    """Ask the pool what is in flight."""


Message: TypeAlias = m.InFlight | m.RenewNow | _Round


class LeaseRenewer(StemActor):
    """Asks the pool in rounds what is in flight and renews what has used up a third of its time.

    Owns:     nothing; a successor starts with a round of its own, before any lease can lapse.
    Receives: InFlight, RenewNow (executor pool).      Tells: executor pool (RenewalRound, Renewed, LeasesLost, PlacesLost).
    """

    def __init__(
        self,
        context: ActorContext,
        broker: Broker,
        limiter: RateLimiter,
        worker: str,
        reconnect: Reconnect,
        vitals: Vitals,
        tally: Tally,
    ) -> None:
        super().__init__(context)
        self._broker = broker
        self._limiter = limiter
        self._worker = worker
        self._reconnect = reconnect
        self._vitals = vitals
        self._tally = tally
        self._timer: Timer | None = None

    def on_start(self) -> None:
        self._ask()

    def on_receive(self, message: Message) -> None:
        match message:
            case _Round() | m.RenewNow():
                self._ask()
            case m.InFlight(leases, next_round, places):
                self._renew(leases, next_round)
                if places:
                    self._renew_places(places)
            case _:
                assert_never(message)

    def _ask(self) -> None:
        self.take(m.RenewNow, 1000)
        self.tell(m.EXECUTOR_POOL, m.RenewalRound())
        self._next(_PATIENCE)

    def _next(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.after(seconds, _Round())

    def _renew(self, leases: Sequence[Lease], next_round: float) -> None:
        now = self.clock.monotonic()  # before the request: a lease is never counted longer than the broker does
        try:
            answers = self._broker.extend(leases) if leases else []
        except (BrokerUnavailable, StorageFull) as error:
            self._next(min(next_round, self._reconnect.failed(error)))
            return
        self._reconnect.succeeded()
        self._vitals.renewed_at = now
        renewed: dict[int | str, float] = {}
        lost: list[int | str] = []
        for lease, answer in zip(leases, answers, strict=True):
            if isinstance(answer, Done):
                renewed[lease.token] = now + lease.visibility
                self._tally.count("stem_lease_renewed_total", lease.queue, self._worker)
            elif isinstance(answer, Stale):
                lost.append(lease.token)
        if renewed:
            self.tell(m.EXECUTOR_POOL, m.Renewed(renewed))
        if lost:
            self.tell(m.EXECUTOR_POOL, m.LeasesLost(lost))
        self._next(next_round)

    def _renew_places(self, places: Sequence[Place]) -> None:
        """After the leases, which matter more. Where nobody answers they are held for a while yet: the next round tries again."""
        try:
            are_held = self._limiter.renew(places)
        except StemError as error:
            _logger.warning("%s: places of concurrency limits cannot be renewed: %s", self._worker, error)
            return
        lost = [place.holder for place, is_held in zip(places, are_held, strict=True) if not is_held]
        if lost:
            self.tell(m.EXECUTOR_POOL, m.PlacesLost(lost))
