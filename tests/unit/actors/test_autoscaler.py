"""An autoscaler with a pool and a broker that are made up, on a clock that is moved by hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest

from stem_actors.actors import messages as m
from stem_actors.actors.autoscaler import Autoscaler
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable
from stem_actors.model.autoscale import Autoscale
from stem_actors.ports import Broker, QueueDepth
from stem_actors.supervision import ChildSpec, StemActor, Stepper, actor
from stem_actors.testing import ManualClock


class Pool(StemActor):
    """Holds as much as its bed says, and notes when it was to have how many executors."""

    def __init__(self, context: Any, bed: Bed) -> None:
        super().__init__(context)
        self.bed = bed

    def on_receive(self, message: Any) -> Any:
        match message:
            case m.AskLoad() if self.bed.answers:
                self.tell(m.AUTOSCALER, m.Load(self.bed.inflight))
            case m.ConcurrencyChanged():
                self.bed.steps.append((self.bed.clock.monotonic() - self.bed.began, self.bed.vitals.concurrency))


class Bed:
    def __init__(self, concurrency: int = 4) -> None:
        self.clock = ManualClock()
        self.began = self.clock.monotonic()
        self.vitals = Vitals(concurrency=concurrency)
        self.inflight = self.backlog = self.asked = 0
        self.answers, self.is_away = True, False
        self.queues: list[Sequence[str] | None] = []
        self.steps: list[tuple[float, int]] = []

        def autoscaler(context: Any) -> Autoscaler:
            rules = Autoscale(least=1, most=4)
            return Autoscaler(context, rules, cast(Broker, self), ("mail", "reports"), "w-1", self.vitals)

        specs = [
            ChildSpec(m.EXECUTOR_POOL, actor(lambda context: Pool(context, self))),
            ChildSpec(m.AUTOSCALER, actor(autoscaler)),
        ]
        self.stepper = Stepper(specs, clock=self.clock)

    def depths(self, queues: Sequence[str] | None = None) -> list[QueueDepth]:
        self.asked += 1
        self.queues.append(queues)
        if self.is_away:
            raise BrokerUnavailable("away")
        return [QueueDepth(queue, self.backlog // len(queues or ()), 9, 9, 9, None) for queue in queues or ()]

    def run(self, seconds: float) -> list[tuple[float, int]]:
        """The steps of the next so many seconds."""
        self.began, self.steps = self.clock.monotonic(), []
        self.stepper.run_until(lambda: self.clock.monotonic() >= self.began + seconds)
        return [(round(at), executors) for at, executors in self.steps]


def test_an_idle_worker_shrinks_and_asks_the_broker_for_nothing() -> None:
    bed = Bed()
    assert bed.run(100) == [(32, 3), (42, 2), (52, 1)]
    assert bed.asked == 0


def test_a_worker_with_a_backlog_grows_to_its_most_and_then_asks_no_more(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed(concurrency=1)
    bed.backlog, bed.inflight = 100, 2
    with caplog.at_level(logging.INFO, "stem.autoscaler"):
        assert bed.run(30) == [(2, 2), (8, 3)]  # then it has more executors than tasks, so it would have taken what waits
        bed.inflight = 9
        assert [executors for _, executors in bed.run(10)] == [4]
    record = caplog.records[0].__dict__
    facts = {name: record[name] for name in ("from", "to", "reason", "backlog", "inflight", "worker")}
    assert facts == {"from": 1, "to": 2, "reason": "scale-up", "backlog": 100, "inflight": 2, "worker": "w-1"}
    asked = bed.asked
    assert bed.run(60) == []
    assert bed.asked == asked


def test_paused_queues_do_not_count_as_work() -> None:
    bed = Bed(concurrency=1)
    bed.backlog, bed.inflight = 100, 3
    bed.vitals.paused = frozenset(("mail",))
    bed.run(3)
    assert bed.queues == [["reports"]]
    bed.vitals.paused = frozenset(("mail", "reports"))
    bed.inflight = 9
    assert bed.run(30) == []
    assert bed.asked == 1


def test_what_the_broker_last_said_counts_while_it_is_away() -> None:
    bed = Bed(concurrency=1)
    bed.backlog, bed.inflight = 100, 9
    assert bed.run(3) == [(2, 2)]
    bed.is_away = True
    assert [executors for _, executors in bed.run(8)] == [3]


def test_without_an_answer_of_the_pool_nothing_changes() -> None:
    bed = Bed()
    bed.answers = False
    assert bed.run(120) == []
