"""Concurrency limits: the places of a key are leases, and what every adapter answers is what `model/concurrency.py` says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from stem_actors.model.concurrency import GRACE, LONGEST_PACE, Place, Semaphore, grant
from stem_actors.model.rate import Bucket, Limit, Rate
from stem_actors.ports import RateLimiter, Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import Fabric
from tests.fixtures.waiting import until


@pytest.fixture
def limiter(stores: Stores) -> RateLimiter:
    return stores.rate_limits


def place(
    task: str, number: int = 2, key: str = "key", since: float = 0.0, lasts: float = 30.0, pace: float = LONGEST_PACE
) -> Place:
    return Place(key, number, f"{task} of worker", task, since, lasts, pace)


def ask(limiter: RateLimiter, *places: Place) -> list[float | None]:
    return limiter.acquire([[each] for each in places])


def granted(answers: Sequence[float | None]) -> list[bool]:
    return [answer is None for answer in answers]


def test_so_many_and_no_more_have_a_place_until_one_is_freed(limiter: RateLimiter) -> None:
    assert granted(ask(limiter, *map(place, "abcd"))) == [True, True, False, False]
    limiter.release([place("a")])
    limiter.release([place("a")])
    assert granted(ask(limiter, place("c"), place("d"))) == [True, False]


def test_who_has_a_place_has_it_when_asked_again(limiter: RateLimiter) -> None:
    assert granted(ask(limiter, place("a", 1), place("a", 1))) == [True, True]
    assert granted(ask(limiter, place("b", 1))) == [False]
    limiter.release([place("a")])
    assert granted(ask(limiter, place("b", 1))) == [True]


def test_each_key_has_places_of_its_own(limiter: RateLimiter) -> None:
    keys = ["a", "b", "a:b", "{a}", "ü ", "", "a\nb", "line:a"]
    assert granted(ask(limiter, *(place("one", 1, key) for key in keys))) == [True] * len(keys)
    assert granted(ask(limiter, *(place("two", 1, key) for key in keys))) == [False] * len(keys)


def test_two_namespaces_count_apart(fabric: Fabric) -> None:
    assert granted(ask(fabric.open("one").rate_limits, place("a", 1))) == [True]
    assert granted(ask(fabric.open("other").rate_limits, place("b", 1))) == [True]


def test_a_place_lapses_unless_it_is_renewed(limiter: RateLimiter, clock: ManualClock) -> None:
    ask(limiter, place("a"), place("b"))
    clock.advance(20)
    assert limiter.renew([place("a")]) == [True]
    clock.advance(11)
    assert granted(ask(limiter, place("c"), place("d"))) == [True, False]
    assert limiter.renew([place("b"), place("a")]) == [False, True], "the place of one was given to another"
    assert limiter.renew([]) == []


def test_a_place_that_lapsed_and_nobody_took_is_held_on(limiter: RateLimiter, clock: ManualClock) -> None:
    ask(limiter, place("a", 1))
    clock.advance(100)
    assert limiter.renew([place("a", 1)]) == [True]
    assert granted(ask(limiter, place("b", 1))) == [False]


def test_who_gets_no_place_spends_no_token_and_who_gets_no_token_has_no_place(limiter: RateLimiter, clock: ManualClock) -> None:
    token = Limit("rate", Rate(2, 3600.0))
    assert granted(limiter.acquire([[token, place("a", 1)], [token, place("b", 1)], [place("c", 1, "other"), token]])) == [
        *(True, False, True)
    ]
    limiter.release([place("a", 1)])
    assert granted(limiter.acquire([[token, place("b", 1)]])) == [False]
    clock.advance(LONGEST_PACE + GRACE + 0.01)
    assert granted(ask(limiter, place("d", 1))) == [True]


def test_several_places_are_had_together_or_not_at_all(limiter: RateLimiter) -> None:
    assert granted(limiter.acquire([[place("a", 1, "x")], [place("b", 1, "x"), place("b", 1, "y")], [place("c", 1, "y")]])) == [
        *(True, False, True)
    ]


def test_those_that_are_refused_are_told_different_moments(limiter: RateLimiter) -> None:
    answers = ask(limiter, *(place(f"t{number}", 1, since=number, pace=0.1) for number in range(12)))
    assert answers[0] is None
    assert answers[1] == pytest.approx(0.1, abs=0.002), "the oldest is next"
    assert answers[2:] == [pytest.approx(number / 10, abs=0.002) for number in range(1, 11)]


def test_a_free_place_is_kept_for_the_one_that_has_waited_longest(limiter: RateLimiter, clock: ManualClock) -> None:
    ask(limiter, place("running", 1, since=1))
    ask(limiter, place("young", 1, since=9))
    ask(limiter, place("old", 1, since=2))
    limiter.release([place("running")])
    assert granted(ask(limiter, place("new", 1, since=10), place("young", 1, since=9), place("old", 1, since=2))) == [
        *(False, False, True)
    ]
    limiter.release([place("old")])
    clock.advance(LONGEST_PACE + GRACE + 0.01)
    assert granted(ask(limiter, place("new", 1, since=10))) == [True], "whoever does not come keeps nobody out for long"


def test_answers_are_those_of_the_arithmetic(limiter: RateLimiter, clock: ManualClock) -> None:
    chance = random.Random(11)
    buckets: dict[str, Bucket] = {}
    semaphores: dict[str, Semaphore] = {}
    keys = {"a": 1, "b": 2, "c": 5}
    for step in range(400):
        now = clock.now()
        some = [
            place(
                f"t{number}", keys[key], key, since=number, lasts=chance.choice([1.0, 5.0, 30.0]), pace=chance.choice([0.02, 0.2])
            )
            for number, key in [(chance.randint(0, 9), chance.choice(sorted(keys))) for _ in range(chance.randint(1, 4))]
        ]
        match chance.randint(0, 3):
            case 0:
                limiter.release(some)
                for each in some:
                    semaphores[each.key] = semaphores.get(each.key, Semaphore()).freed(each.holder)
            case 1:
                wanted = []
                for each in some:
                    after = semaphores.get(each.key, Semaphore()).at(now).renewed(each, now)
                    if after is not None:
                        semaphores[each.key] = after
                    wanted.append(after is not None)
                assert limiter.renew(some) == wanted, step
            case _:
                asked: list[list[Limit | Place]] = [[each] for each in some]
                if chance.random() < 0.3:
                    asked[0].append(Limit("rate", Rate(3, 1.0)))
                expected = grant(asked, buckets, semaphores, now)
                answers = limiter.acquire(asked)
                assert answers == [None if wait is None else pytest.approx(wait, abs=0.005) for wait in expected], step
        clock.advance(chance.choice([0, 0.01, 0.2, 0.25, 1, 6]))


def test_what_is_over_leaves_nothing_behind(fabric: Fabric, limiter: RateLimiter, clock: ManualClock) -> None:
    ask(limiter, place("c", 1, "last", lasts=0.5))
    before = fabric.count_entries()
    ask(limiter, *(place(task, 1, f"key-{number}", lasts=0.5, pace=0.02) for number in range(20) for task in "abc"))
    assert fabric.count_entries() >= before + 20
    clock.advance(100)
    ask(limiter, place("c", 1, "last", lasts=0.5))
    until(lambda: fabric.count_entries() <= before)  # a server of its own forgets by its own clock


def test_workers_that_ask_at_once_never_get_more_than_there_are(fabric: Fabric) -> None:
    limiters = [fabric.open_in_real_time().rate_limits for _ in range(4)]

    def take(limiter: RateLimiter, name: str) -> int:
        answers = [ask(limiter, place(f"{name}-{number}", 7, since=number))[0] for number in range(25)]
        return answers.count(None)

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, limiters, "abcd"))
    assert sum(taken) <= 7
    assert sum(taken) >= 6, "one may be kept for the next"
