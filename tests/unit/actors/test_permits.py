"""Asking the rate limiter, and what holds when it does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stem_actors.actors.catalogue import Catalogue, LimitRule, PlaceRule, Rule, places_of
from stem_actors.actors.messages import Permit
from stem_actors.actors.permits import Permits
from stem_actors.adapters.memory import MemoryServer
from stem_actors.errors import BrokerUnavailable
from stem_actors.metrics import Tally
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Lease
from stem_actors.model.outcome import Limited
from stem_actors.model.rate import Limit, Rate
from stem_actors.ports import RateLimiter
from stem_actors.testing import ManualClock
from tests.unit.actors.test_catalogue import entry
from tests.unit.model.values import LEASE, delivery_of

ONCE = Rate(1, 60.0)


class Unreliable:
    """A limiter that can be out of reach; asked so often."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        self.is_away = False
        self.asked = 0

    def acquire(self, asked: Sequence[Sequence[Limit | Place]]) -> list[float | None]:
        self._ask()
        return self._limiter.acquire(asked)

    def renew(self, places: Sequence[Place]) -> list[bool]:
        self._ask()
        return self._limiter.renew(places)

    def release(self, places: Sequence[Place]) -> None:
        self._ask()
        self._limiter.release(places)

    def _ask(self) -> None:
        self.asked += 1
        if self.is_away:
            raise BrokerUnavailable("away")

    def close(self) -> None:
        self._limiter.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limiter(clock: ManualClock) -> Unreliable:
    return Unreliable(MemoryServer(clock).namespace("stem").rate_limits())


def asked(*rules: Rule, lease: Lease = LEASE) -> list[Permit]:
    return [Permit(delivery_of()._replace(lease=lease), rules)]


def test_what_the_limiter_refuses_is_put_off_for_as_long_as_it_says(limiter: Unreliable, clock: ManualClock) -> None:
    permits = Permits(limiter, clock, "w", Tally())
    rule = LimitRule("task", "t", ONCE)
    assert permits.ask(asked(rule)) == {LEASE.token: None}
    assert permits.ask(asked(rule)) == {LEASE.token: Limited(pytest.approx(60.0))}  # type: ignore[arg-type]  # stands for a float


def test_without_an_answer_a_task_runs_unless_one_of_its_limits_says_no(limiter: Unreliable, clock: ManualClock) -> None:
    tally, limiter.is_away = Tally(), True
    permits = Permits(limiter, clock, "w", tally)
    open_, closed = LimitRule("group", "group", ONCE), LimitRule("task", "t", ONCE, fails_open=False)
    assert permits.ask(asked(open_)) == {LEASE.token: None}
    assert permits.ask(asked(open_, closed)) == {LEASE.token: Limited(None)}
    counted = {labels[2:]: number for (_, labels), number in tally.snapshot()[0].items()}
    assert counted == {("group", "fail_open"): 2, ("task", "fail_closed"): 1}


def test_a_limiter_that_does_not_answer_is_left_alone_for_a_while(limiter: Unreliable, clock: ManualClock) -> None:
    limiter.is_away = True
    permits = Permits(limiter, clock, "w", Tally())
    for _ in range(5):
        permits.ask(asked(LimitRule("task", "t", ONCE)))
    assert limiter.asked == 1
    limiter.is_away = False
    clock.advance(1.1)
    permits.ask(asked(LimitRule("task", "t", ONCE)))
    assert limiter.asked == 2


def test_a_tasks_limits_come_from_the_catalogue_and_their_keys_from_the_call() -> None:
    options = {"rate_limit": "10/s", "rate_limit_failure_mode": "fail_closed", "group_rate_limit": "5/m"}
    more = {"group_rate_key": None, "group_rate_key_header": "customer", "group_rate_limiter_failure_mode": "fail_open"}
    facts = Catalogue({"tasks": [entry("t", **options, **more)]}).find("t")
    assert facts is not None
    group, own = facts.limits
    assert (group.scope, group.fails_open, own.scope, own.fails_open) == ("group", True, "task", False)
    plain = delivery_of().envelope
    named = plain._replace(headers={"tenant": "acme", "customer": "bob"})
    assert isinstance(group, LimitRule)
    assert isinstance(own, LimitRule)
    assert [rule.limit(plain) for rule in (group, own)] == [("group:global", (5, 60.0)), ("t:global", (10, 1.0))]
    assert [rule.limit(named).key for rule in (group, own)] == ["group:bob", "t:acme"]
    assert group._replace(key="sms").limit(named).key == "group:sms"


def test_a_place_is_held_by_one_delivery_until_it_is_freed(limiter: Unreliable, clock: ManualClock) -> None:
    permits = Permits(limiter, clock, "w", Tally())
    rule, other = PlaceRule("task:t", 1), LEASE._replace(token="another")
    assert permits.ask(asked(rule)) == {LEASE.token: None}
    assert permits.ask(asked(rule)) == {LEASE.token: None}, "asked again by a new settler"
    assert permits.ask(asked(rule, lease=other)) == {"another": Limited(pytest.approx(0.02))}  # type: ignore[arg-type]  # a float
    permits.free(places_of(delivery_of(), [rule]))
    assert permits.ask(asked(rule, lease=other)) == {"another": None}


def test_without_an_answer_nothing_runs_beyond_its_places(limiter: Unreliable, clock: ManualClock) -> None:
    limiter.is_away = True
    permits = Permits(limiter, clock, "w", Tally())
    assert permits.ask(asked(PlaceRule("task:t", 1), LimitRule("task", "t", ONCE))) == {LEASE.token: Limited(None)}
    permits.free(places_of(delivery_of(), [PlaceRule("task:t", 1)]))
    assert limiter.asked == 1, "it is left alone for a while"


def test_the_keys_of_places_come_from_the_task_and_the_call() -> None:
    def places(task: str = "t", header: str | None = None, key: str | None = None, **headers: str) -> list[Place]:
        options = {"concurrency_limit": 3, "concurrency_key": key, "concurrency_key_header": header}
        facts = Catalogue({"tasks": [entry(task, **options)]}).find(task)
        assert facts is not None
        delivery = delivery_of()
        return places_of(delivery._replace(envelope=delivery.envelope._replace(headers=headers)), facts.limits)

    (plain,) = places()
    assert (plain.key, plain.number, plain.lasts) == ("task:t", 3, LEASE.visibility)
    assert str(LEASE.token) in plain.holder
    assert [places(header="tenant", tenant="a")[0].key, places(header="tenant")[0].key] == ["task:t:a", "task:t:global"]
    assert places(key="ledger", header="tenant", tenant="a")[0].key == places("u", "tenant", "ledger", tenant="a")[0].key


def test_a_task_tells_the_broker_before_it_starts_only_where_there_is_something_to_tell() -> None:
    cases: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"acks_late": False},
        "c": {"unique_scope": "until_started"},
        "d": {"unique_scope": "until_done"},
    }
    catalogue = Catalogue({"tasks": [entry(name, **changes) for name, changes in cases.items()]})
    assert [name for name in cases if (facts := catalogue.find(name)) and facts.tells_first] == ["b", "c"]
