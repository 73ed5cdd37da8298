"""The consumer: fetches deliveries against credit, decodes them, and hands them to the pool, unreadable ones too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.server_clock import ServerClock
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable, MalformedMessage, StorageFull
from stem_actors.model.delivery import Delivery, Handout, State
from stem_actors.model.envelope import Envelope
from stem_actors.model.outcome import ErrorInfo, Expired, Outcome, Rejected
from stem_actors.ports import Broker, Intake
from stem_actors.supervision.base import ActorContext, StemActor
from stem_actors.supervision.timers import Timer

__all__ = ["Consumer"]

_logger = logging.getLogger("stem.consumer")

LONGEST_WAIT = 1.0
"""Seconds of one blocking read; bounds how old `Vitals.received_at` gets while all is well."""
MOST_AT_ONCE = 512

DecodeDelivery = Callable[[Handout], Delivery]


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Use the credit there is."""


Message: TypeAlias = m.Credit | m.Recover | m.PausesChanged | m.StopFetching | _Fetch


class Consumer(StemActor):
    """Receives from the broker as much as the pool has granted.

    Queues that are paused it leaves alone; while all are, it keeps its credit and asks the broker for nothing.

    Owns:     the intake; the credit it has not used.
    Receives: Credit, Recover, StopFetching (executor pool, worker), PausesChanged (revoke listener).      Tells: executor pool
              (ConsumerStarted, Deliver, Held, FetchingStopped).
    Restart:  it lists the leases of its incarnation, without touching them, and hands over those the pool does not know. The same
              after every reconnect, since a lost reply leaves such leases too.
    """

    def __init__(
        self,
        context: ActorContext,
        broker: Broker,
        queues: Sequence[str],
        holder: str,
        decode: DecodeDelivery,
        reconnect: Reconnect,
        vitals: Vitals,
        server_clock: ServerClock,
    ) -> None:
        super().__init__(context)
        self._broker = broker
        self._queues = queues
        self._holder = holder
        self._decode = decode
        self._reconnect = reconnect
        self._vitals = vitals
        self._server_clock = server_clock
        self._intake: Intake | None = None
        self._paused = frozenset[str]()  # what the intake leaves out
        self._credit = 0
        self._must_recover = True
        self._is_scheduled = False
        self._next_fetch: Timer | None = None
        self._is_stopped = False

    def on_start(self) -> None:
        self._vitals.received_at = self.clock.monotonic()
        self.tell(m.EXECUTOR_POOL, m.ConsumerStarted())

    def on_stop(self) -> None:
        if self._intake is not None:
            self._intake.close()

    def on_receive(self, message: Message) -> None:
        match message:
            case m.Credit(count):
                self._credit += count
                self._schedule()
            case _Fetch():
                self._is_scheduled = False
                self._fetch()
            case m.PausesChanged():
                self._look_again()
            case m.Recover(tokens):
                self._recover(frozenset(tokens))
            case m.StopFetching():
                self._is_stopped = True
                self.tell(m.EXECUTOR_POOL, m.FetchingStopped())
            case _:
                assert_never(message)

    def _schedule(self, delay: float = 0.0) -> None:
        if not self._is_scheduled and not self._is_stopped:
            self._is_scheduled = True
            self._next_fetch = self.after(delay, _Fetch())

    def _look_again(self) -> None:
        """At once: this message has ended the wait for what may be paused by now, and nothing shall hold up what is resumed."""
        if self._next_fetch is not None:
            self._next_fetch.cancel()
        self._is_scheduled = False
        self._schedule()

    def _fetch(self) -> None:
        for credit in self.take(m.Credit, 1000):
            self._credit += credit.count
        if self._credit <= 0 or self._is_stopped:
            return
        try:
            if self._must_recover:
                self._look_for_held()
            intake = self._open_intake()
            if intake is None:  # nothing to ask for, and nothing amiss
                self._vitals.received_at = self.clock.monotonic()
                self._schedule(LONGEST_WAIT)
                return
            with self.interruptible(intake.interrupt):
                handouts = intake.receive(min(self._credit, MOST_AT_ONCE), LONGEST_WAIT)
        except (BrokerUnavailable, StorageFull) as error:
            self._must_recover = True  # the answer that was lost may have carried leases
            self._schedule(self._reconnect.failed(error))
            return
        self._reconnect.succeeded()
        self._vitals.received_at = self.clock.monotonic()
        if handouts:
            self._credit -= len(handouts)
            self._deliver(handouts)
        if self._credit > 0:
            self._schedule()

    def _open_intake(self) -> Intake | None:
        """The intake for the queues that are not paused; None while all are."""
        paused = self._vitals.paused
        if self._intake is not None and paused != self._paused:
            self._intake.close()
            self._intake = None
        self._paused = paused
        if self._intake is None:
            open_queues = [queue for queue in self._queues if queue not in paused]
            self._intake = self._broker.open_intake(open_queues, self._holder) if open_queues else None
        return self._intake

    def _look_for_held(self) -> None:
        self._server_clock.compare()
        held = self._broker.held(self._holder)
        if held:
            self.tell(m.EXECUTOR_POOL, m.Held([handout.lease.token for handout in held]))
        self._must_recover = False

    def _recover(self, tokens: frozenset[int | str]) -> None:
        try:
            held = [handout for handout in self._broker.held(self._holder) if handout.lease.token in tokens]
        except (BrokerUnavailable, StorageFull) as error:
            self._must_recover = True
            self._schedule(self._reconnect.failed(error))
            return
        if held:
            _logger.warning("taking up %d deliveries that nobody here knew of", len(held))
            self._deliver(held, recovered=True)

    def _deliver(self, handouts: Sequence[Handout], recovered: bool = False) -> None:
        """Decode and hand over; whatever is wrong with one message becomes that one's outcome."""
        decode = self._decode
        deliveries: list[Delivery] = []
        judged: list[tuple[Delivery, Outcome]] = []
        for handout in handouts:
            try:
                delivery = decode(handout)
            except MalformedMessage as error:
                _logger.warning("queue %s holds a message that cannot be read: %s", handout.lease.queue, error)
                judged.append((_unreadable(handout), Rejected(error.reason, ErrorInfo("Malformed", str(error)))))
                continue
            expires_at = delivery.envelope.expires_at
            if expires_at is not None and expires_at <= self._server_clock.now():
                judged.append((delivery, Expired()))
            else:
                deliveries.append(delivery)
        self.tell(m.EXECUTOR_POOL, m.Deliver(deliveries, judged, recovered))


def _unreadable(handout: Handout) -> Delivery:
    """A stand-in for what cannot be decoded, so that it takes the same way as everything else; its bytes stay as they are."""
    envelope = Envelope(0, handout.id, "_unknown", [], {}, {}, 0.0, None, 0, 0, None, handout.lease.queue, {})
    return Delivery(envelope, handout.state or State(delivery_count=1), handout.lease, handout.body)
