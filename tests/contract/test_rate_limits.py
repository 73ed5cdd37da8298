"""Rate limits: what every adapter answers, which is what the arithmetic of `model/rate.py` says."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from stem_actors.model.rate import Bucket, Limit, Rate, ask
from stem_actors.ports import Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import Fabric
from tests.fixtures.waiting import until

TEN = Rate(10, 1.0)


def granted(answers: list[float | None]) -> int:
    return answers.count(None)


def test_a_burst_is_let_through_and_then_what_the_rate_allows(stores: Stores, clock: ManualClock) -> None:
    limits = [[Limit("key", TEN)]] * 30
    answers = stores.rate_limits.acquire(limits)
    assert answers[:10] == [None] * 10
    assert answers[10:] == [pytest.approx(each / 10, abs=0.002) for each in range(1, 21)]
    clock.advance(0.5)
    assert granted(stores.rate_limits.acquire(limits)) == 5
    clock.advance(100)
    assert granted(stores.rate_limits.acquire(limits)) == 10


def test_each_key_has_tokens_of_its_own(stores: Stores) -> None:
    once = Rate(1, 60.0)
    keys = ["a", "b", "a:b", "{a}", "ü ", "", "a\nb"]
    asked = [[Limit(key, once)] for key in keys]
    assert stores.rate_limits.acquire(asked) == [None] * len(keys)
    assert granted(stores.rate_limits.acquire(asked)) == 0


def test_who_is_refused_by_one_limit_spends_nothing_of_the_other(stores: Stores) -> None:
    wide, narrow = Limit("wide", Rate(3, 60.0)), Limit("narrow", Rate(1, 60.0))
    answers = stores.rate_limits.acquire([[wide, narrow], [wide, narrow], [wide], [wide], [wide]])
    assert [answer is None for answer in answers] == [True, False, True, True, False]


def test_nothing_asked_is_nothing_refused(stores: Stores) -> None:
    assert stores.rate_limits.acquire([]) == []
    assert stores.rate_limits.acquire([[], []]) == [None, None]


def test_answers_are_those_of_the_arithmetic(stores: Stores, clock: ManualClock) -> None:
    chance = random.Random(7)
    rates = {"a": Rate(3, 1.0), "b": Rate(20, 60.0), "c": Rate(2, 3600.0)}
    buckets: dict[str, Bucket] = {}
    for _ in range(60):
        keys = chance.sample(sorted(rates), chance.randint(1, 2))
        after, wanted = ask([buckets.get(key, Bucket()) for key in keys], [rates[key] for key in keys], clock.now())
        buckets.update(zip(keys, after, strict=True))
        (answer,) = stores.rate_limits.acquire([[Limit(key, rates[key]) for key in keys]])
        assert answer == (None if wanted is None else pytest.approx(wanted, abs=0.01))
        clock.advance(chance.choice([0, 0.05, 0.4, 3, 100]))


def test_two_namespaces_count_apart(fabric: Fabric) -> None:
    asked = [[Limit("key", Rate(1, 60.0))]]
    assert fabric.open("one").rate_limits.acquire(asked) == [None]
    assert fabric.open("other").rate_limits.acquire(asked) == [None]
    assert fabric.open("one").rate_limits.acquire(asked) != [None]


def test_what_is_over_leaves_nothing_behind(fabric: Fabric, stores: Stores, clock: ManualClock) -> None:
    slow = Rate(1, 2.0)
    stores.rate_limits.acquire([[Limit("last", slow)]])
    before = fabric.count_entries()
    stores.rate_limits.acquire([[Limit(f"key-{number}", slow)] for number in range(50)])
    assert fabric.count_entries() == before + 50
    clock.advance(3)
    stores.rate_limits.acquire([[Limit("last", slow)]])
    until(lambda: fabric.count_entries() <= before)  # a server of its own forgets by its own clock


def test_many_at_once_get_no_more_than_there_is(fabric: Fabric) -> None:
    limiters = [fabric.open_in_real_time().rate_limits for _ in range(4)]
    hourly = Limit("key", Rate(20, 3600.0))

    def hammer(number: int) -> Counter[bool]:
        return Counter(answer is None for _ in range(10) for answer in limiters[number].acquire([[hourly]] * 2))

    with ThreadPoolExecutor(4) as pool:
        counted = sum(pool.map(hammer, range(4)), Counter[bool]())
    assert counted == {True: 20, False: 60}
