"""A consumer some of whose queues are paused, with a broker that is made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from stem_actors.actors import messages as m
from stem_actors.actors.consumer import Consumer
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.server_clock import ServerClock
from stem_actors.actors.vitals import Vitals
from stem_actors.codecs.msgpack import decode_delivery
from stem_actors.metrics import Tally
from stem_actors.ports import Broker
from stem_actors.supervision import ChildSpec, StemActor, Stepper, actor
from tests.unit.actors.test_consumer import Store

QUEUES = ("mail", "reports")


class Queues(Store):
    """Remembers from which queues it was asked for work."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []
        self.fetches = 0
        self.closed = 0

    def open_intake(self, queues: Sequence[str], holder: str) -> Store:
        self.asked.append(list(queues))
        return self

    def receive(self, limit: int, wait: float) -> list[Any]:
        self.fetches += 1
        return super().receive(limit, wait)

    def close(self) -> None:
        self.closed += 1


class Generous(StemActor):
    """A pool that gives credit once."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, m.ConsumerStarted):
            self.tell(m.CONSUMER, m.Credit(2))


class Bed:
    def __init__(self, *paused: str) -> None:
        self.store, self.vitals = Queues(), Vitals(paused=frozenset(paused))
        reconnect = Reconnect(m.CONSUMER, "w-1", 30.0, self.vitals, Tally())

        def consumer(context: Any) -> Consumer:
            broker = cast(Broker, self.store)
            server_clock = ServerClock(self.store.clock, broker)
            return Consumer(context, broker, QUEUES, "me#1", decode_delivery, reconnect, self.vitals, server_clock)

        specs = [ChildSpec(m.EXECUTOR_POOL, actor(Generous)), ChildSpec(m.CONSUMER, actor(consumer))]
        self.stepper = Stepper(specs, clock=self.store.clock)

    def pause(self, *queues: str) -> None:
        self.vitals.paused = frozenset(queues)
        self.stepper.tell(m.CONSUMER, m.PausesChanged())

    def run(self, seconds: float) -> None:
        end = self.store.clock.monotonic() + seconds
        self.stepper.run_until(lambda: self.store.clock.monotonic() >= end)


def test_it_asks_for_what_is_not_paused_and_turns_to_others_when_that_changes() -> None:
    bed = Bed("reports")
    bed.run(2)
    bed.pause()
    bed.run(2)
    bed.pause("mail")
    bed.run(2)
    assert bed.store.asked == [["mail"], ["mail", "reports"], ["reports"]]
    assert bed.store.closed == 2
    bed.stepper.stop()


def test_while_all_are_paused_it_asks_for_nothing_and_is_not_thought_to_be_stuck() -> None:
    bed = Bed(*QUEUES)
    for _ in range(10):
        bed.run(1)
        assert bed.store.clock.monotonic() - bed.vitals.received_at <= 1.5
    assert (bed.store.fetches, bed.store.asked) == (0, [])
    bed.stepper.stop()


def test_it_goes_on_at_once_when_it_is_resumed() -> None:
    bed = Bed(*QUEUES)
    bed.run(3.5)
    bed.pause()
    before = bed.store.clock.monotonic()
    bed.stepper.run_until(lambda: bed.store.fetches == 1)
    assert bed.store.clock.monotonic() - before <= 1.0  # the fetch's own waiting
    bed.stepper.stop()
