"""Seeded schedules of everything that can go wrong, judged by the checkers of real chaos runs; and faults of ours that they find.

A schedule that breaks a promise is had again with its seed: `schedule(SEED, …)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from stem_actors import BrokerUnavailable, RetryPolicy, Settings, Stem, current_task
from stem_actors.actors.lease_renewer import LeaseRenewer
from stem_actors.adapters.memory.broker import MemoryBroker
from stem_actors.adapters.memory.space import Held
from stem_actors.model.delivery import Lease
from stem_actors.model.outcome import Ack, Retry
from stem_actors.model.record import Settlement
from stem_actors.ports import Answer, Broker, Done, Message, Swept
from stem_actors.testing import Faults, NotQuiet, Simulation
from stem_actors.testing.forwarding import ForwardingBroker
from stem_chaos.checker.rates import rate_checker
from stem_chaos.simulation import CHECKERS, broken

SCHEDULES = 40  # of each kind; a soak tries thousands
ENOUGH = 150  # schedules in which a broken promise has to be found
NOT_QUIET = "not quiet"
Wrap = Callable[[Broker], Broker]
EXPECTS = {
    "plain": "succeeded",
    "flaky": "succeeded",
    "hopeless": "max-retries-exhausted",
    "long": "succeeded",
    "waits": "succeeded",
    "rare": "succeeded",
    "poison": "poison",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def app() -> Stem:
    app = Stem(settings=Settings(broker_url="memory://"))

    @app.task(name="plain")
    def plain(number: int) -> int:
        return number

    @app.task(name="flaky", max_retries=3, retry_policy=RetryPolicy(default_delay=1.0))
    def flaky(failures: int) -> int:
        if current_task().attempt < failures:
            raise ValueError("not yet")
        return failures

    @app.task(name="hopeless", max_retries=2, retry_policy=RetryPolicy(default_delay=0.5))
    def hopeless() -> None:
        raise ValueError("never")

    @app.task(name="long")
    def long(seconds: float) -> None:
        time.sleep(seconds)

    @app.task(name="waits")
    async def waits(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="rare", rate_limit="4/m", rate_limit_failure_mode="fail_closed")
    def rare(number: int) -> int:
        return number

    @app.task(name="poison")
    def poison() -> None:
        os._exit(1)

    return app


def schedule(seed: int, app: Stem, faults: Faults | None = None, **options: Any) -> list[str]:
    """What is found broken in one schedule."""
    work: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("plain", [1], {}),
        ("flaky", [2], {}),
        ("long", [6.0], {}),
        ("waits", [3.0], {}),
        ("plain", [2], {"countdown": 4.0}),
        ("hopeless", [], {"priority": 5}),
        ("poison", [], {}),
    ]
    settings = {"visibility_timeout": 4.0, "max_deliveries": 3}
    with Simulation(app, seed=seed, faults=faults or Faults(), workers=2, settings=settings, **options) as run:
        found: list[str] = []
        try:
            for name, args, enqueue_options in work:
                with contextlib.suppress(BrokerUnavailable):  # nobody knows whether it was stored
                    app.enqueue_by_name(name, args, **enqueue_options)
                run.advance(1.0)
            run.until_quiet(limit=600.0)
        except NotQuiet as error:
            found.append(f"{NOT_QUIET}: {error}")
        findings = broken(run, EXPECTS)
        found += [f"{each.checker}: {violation.text}" for each in findings for violation in each.violations]
        return found


def violations(seeds: Iterable[int], app: Stem, **options: Any) -> list[str]:
    return [f"seed {seed}: {text}" for seed in seeds for text in schedule(seed, app, **options)]


@pytest.mark.parametrize("separate_results", [False, True], ids=["results-beside", "results-apart"])
def test_every_promise_is_kept_in_every_schedule(app: Stem, separate_results: bool) -> None:
    assert violations(range(SCHEDULES), app, separate_results=separate_results) == []


@pytest.mark.parametrize("separate_results", [False, True], ids=["results-beside", "results-apart"])
def test_a_rate_limit_is_kept_and_loses_nothing_in_every_schedule(app: Stem, separate_results: bool) -> None:
    for seed in range(SCHEDULES):
        settings = {"visibility_timeout": 4.0, "max_deliveries": 3}
        with Simulation(app, seed=seed, faults=Faults(), workers=2, settings=settings, separate_results=separate_results) as run:
            for number in range(10):
                with contextlib.suppress(BrokerUnavailable):
                    app.enqueue_by_name("rare", [number])
            run.until_quiet(limit=600.0)
            findings = broken(run, EXPECTS, [*CHECKERS, rate_checker("rare", "4/m")])
            assert [violation.text for finding in findings for violation in finding.violations] == [], seed


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("separate_results", [False, True], ids=["results-beside", "results-apart"])
@pytest.mark.parametrize("thousand", range(1, 6))
def test_every_promise_is_kept_in_thousands_of_schedules(app: Stem, thousand: int, separate_results: bool) -> None:
    assert violations(range(1000 * thousand, 1000 * thousand + 1000), app, separate_results=separate_results) == []


def test_without_a_fault_everything_runs_once(app: Stem) -> None:
    assert violations(range(20), app, faults=Faults.none()) == []


def test_a_seed_is_a_schedule(app: Stem) -> None:
    def story(seed: int) -> str:
        with Simulation(app, seed=seed, faults=Faults(), workers=2, settings={"visibility_timeout": 4.0}) as run:
            with contextlib.suppress(BrokerUnavailable):
                for number in range(5):
                    app.enqueue_by_name("flaky", [number])
                    run.advance(2.0)
            run.until_quiet()
            return run.journal.text()

    for seed in range(5):
        assert story(seed) == story(seed)


# ---------------------------------------------------------------- what must be found


class Wrapped(ForwardingBroker):
    """A broker like the one inside, but for what a subclass breaks."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        assert isinstance(broker, MemoryBroker)
        self._memory = broker
        self._space = broker._space
        self._calls = 0

    def crash_in_between(self) -> None:
        """Now and then the process does not get to the second step."""
        self._calls += 1
        if self._calls % 7 == 0:
            raise BrokerUnavailable("the connection was lost between two steps")


class UnfencedSettlement(Wrapped):
    """Whoever settles a task settles it, whatever lease is held now."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        leased = self._space.leased
        for settlement in settlements:
            if settlement.lease.token not in leased and settlement.record is not None:
                for token, held in list(leased.items()):
                    if held.message.id == settlement.record.id:
                        leased[settlement.lease.token] = Held(leased.pop(token).message, settlement.lease.holder, held.ends)
        return self.inner.settle(settlements)


class RenewalByClaim(Wrapped):
    """A renewal takes the delivery from whoever has it by now."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._messages: dict[int | str, str] = {}

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        leased = self._space.leased
        answers: list[Answer] = []
        for lease in leases:
            if lease.token in leased:
                self._messages[lease.token] = leased[lease.token].message.id
            elif lease.token in self._messages:
                for token, held in list(leased.items()):
                    if held.message.id == self._messages[lease.token]:
                        leased[lease.token] = Held(leased.pop(token).message, lease.holder, held.ends)
            answers += self.inner.extend([lease])
        return answers


class RetryInTwoSteps(Wrapped):
    """A retry is an acknowledgement and a new message."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        answers: list[Answer] = []
        for each in settlements:
            held = self._space.leased.get(each.lease.token)
            if held is None or not isinstance(each.verdict, Retry):
                answers += self.inner.settle([each])
                continue
            answers += self.inner.settle([each._replace(verdict=Ack())])
            self.crash_in_between()
            message = held.message
            again = Message(message.id, message.queue, 9 - message.level, message.body, each.verdict.delay, message.visibility)
            self.inner.publish(f"retry {each.lease.token}", 1, [again])
        return answers


class ResultAfterAcknowledgement(Wrapped):
    """The record is stored when the delivery is gone."""

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        answers = self.inner.settle([each._replace(record=None) for each in settlements])
        self.crash_in_between()
        for each, answer in zip(settlements, answers, strict=True):
            if isinstance(answer, Done):
                self._memory._record(each.record, self.inner.now())
        return answers


class ImpatientSweep(Wrapped):
    """Leases are taken back when a quarter of their time is over."""

    def sweep(self) -> Swept:
        now = self.inner.now()
        for held in self._space.leased.values():
            if held.ends - now < 3.0:
                held.ends = now
        return self.inner.sweep()


class ForgottenCount(Wrapped):
    """A hand-out after a lapse is not counted."""

    def sweep(self) -> Swept:
        swept = self.inner.sweep()
        if swept.reclaimed:
            for levels in self._space.ready.values():
                for level in levels.values():
                    for index, message in enumerate(level):
                        if message.state is not None and message.state.lapses:
                            state = message.state._replace(delivery_count=message.state.delivery_count - 1, lapses=0)
                            level[index] = message._replace(state=state)
        return swept


OFTEN_STOPPED = Faults().but(every=1.0, kill_actor=0.0, kill_worker=0.5, stop_worker=10.0)


@pytest.mark.parametrize(
    ("broken_broker", "faults", "finders"),
    [
        (UnfencedSettlement, OFTEN_STOPPED, {"fencing", "terminal-once"}),
        (RenewalByClaim, OFTEN_STOPPED, {"fencing", "terminal-once"}),
        (RetryInTwoSteps, None, {"no-loss"}),
        (ResultAfterAcknowledgement, None, {"no-loss"}),
        (ImpatientSweep, None, {"duplicates"}),
        (ForgottenCount, None, {"counters"}),
    ],
)
def test_a_broken_broker_is_found(app: Stem, broken_broker: Wrap, faults: Faults | None, finders: set[str]) -> None:
    assert found_by(app, finders, faults=faults, wrap_broker=broken_broker)


def test_leases_that_nobody_renews_are_found(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(self: LeaseRenewer, leases: Sequence[Lease], next_round: float) -> None:
        self._next(next_round)

    monkeypatch.setattr(LeaseRenewer, "_renew", renew)
    assert found_by(app, {"duplicates"}, faults=Faults.none())


def test_a_death_that_nobody_is_told_of_is_found(app: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_actors.actors.executor_ends.blamed", lambda slot, claimed, cause: iter(()))
    assert found_by(app, {NOT_QUIET}, faults=Faults.none())


def found_by(app: Stem, finders: set[str], **options: Any) -> bool:
    """Whether one of these finds something, in as many schedules as it takes."""
    return any(text.partition(":")[0] in finders for seed in range(ENOUGH) for text in schedule(seed, app, **options))
