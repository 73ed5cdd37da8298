"""What goes wrong is drawn from the seed, as often as it is asked for."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from stem_actors.testing.faults import Faults, Nemesis
from stem_actors.testing.journal import Who
from stem_actors.testing.stores import Fate

WORKER = Who("worker-1#2", 2, "worker-1#2")


class Recorder:
    """Victims that only count."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.now = 0.0

    def kill_an_actor(self, chance: random.Random) -> None:
        self.hits["actor"] += 1

    def kill_an_executor(self, chance: random.Random) -> None:
        self.hits["executor"] += 1

    def kill_a_worker(self, chance: random.Random) -> None:
        self.hits["worker"] += 1

    def stop_a_worker(self, chance: random.Random, seconds: float) -> None:
        self.hits["stop"] += 1

    def cut_off(self, seconds: float) -> None:
        self.hits["outage"] += 1

    def jump(self, seconds: float) -> None:
        self.hits["jump"] += 1

    def lost(self, who: Who, call: str, fate: Fate) -> None:
        self.hits[fate.value] += 1


def fates(faults: Faults, seed: int, number: int = 4000) -> list[Fate]:
    victims = Recorder()
    nemesis = Nemesis(faults, seed, victims, lambda: victims.now)
    return [nemesis.fate_of(WORKER, "settle") for _ in range(number)]


def test_calls_meet_their_fates_as_often_as_asked_for() -> None:
    met = Counter(fates(Faults().but(lost_requests=0.1, lost_replies=0.2, repeated=0.0, late=0.3), seed=1))
    shares = {fate: count / 4000 for fate, count in met.items()}
    assert shares == pytest.approx({Fate.REQUEST_LOST: 0.1, Fate.REPLY_LOST: 0.2, Fate.LATE: 0.3, Fate.ANSWERED: 0.4}, abs=0.03)


def test_the_seed_alone_decides() -> None:
    assert fates(Faults(), 1) == fates(Faults(), 1)
    assert fates(Faults(), 1) != fates(Faults(), 2)


def test_it_hits_while_there_are_to_be_faults_and_not_after() -> None:
    victims = Recorder()
    nemesis = Nemesis(Faults().but(seconds=1000.0, every=1.0, kill_worker=0.0), 3, victims, lambda: victims.now)
    while not nemesis.is_over:
        nemesis.look()
        victims.now += 0.02
    assert sum(victims.hits.values()) == pytest.approx(1000, abs=150)
    assert set(victims.hits) == {"actor", "executor", "stop", "outage", "jump"}
    assert nemesis.next_due() is None
    before = dict(victims.hits)
    for _ in range(1000):
        nemesis.look()
        assert nemesis.fate_of(WORKER, "settle") is Fate.ANSWERED
    assert victims.hits == before


def test_nothing_goes_wrong_unless_it_is_asked_for() -> None:
    victims = Recorder()
    nemesis = Nemesis(Faults.none(), 1, victims, lambda: victims.now)
    assert nemesis.is_over
    assert nemesis.next_due() is None
    assert nemesis.run_time() == 0.0
    assert {nemesis.fate_of(WORKER, "settle") for _ in range(100)} == {Fate.ANSWERED}
    nemesis.cut_off(5.0)
    assert nemesis.fate_of(WORKER, "settle") is Fate.REQUEST_LOST
    assert not nemesis.is_over
    victims.now = 5.0
    assert nemesis.is_over


def test_a_misspelt_fault_is_an_error() -> None:
    with pytest.raises(TypeError):
        Faults().but(kill_wroker=1.0)
