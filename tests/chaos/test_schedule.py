"""Schedules: how they are read, and the plan that a seed makes of one."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_actors.errors import ConfigError
from stem_chaos.cluster import Cluster
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.fault import Injection
from stem_chaos.nemesis.schedule import Entry, Planned, parse_schedule, plan


@dataclass(frozen=True)
class Named:
    """A fault that is only planned."""

    name: str
    scope: str
    lasts: float

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        raise AssertionError("this one is never injected")

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        raise AssertionError("this one is never injected")


NAMED = {
    each.name: each
    for each in (
        Named("kill", "process", 0.0),
        Named("pause", "process", 2.0),
        Named("freeze", "broker", 2.0),
        Named("fill", "broker", 3.0),
        Named("crash/settle.before", "points", 1.0),
    )
}


def planned(text: str, seed: int = 7, duration: float = 100.0) -> list[Planned]:
    return plan(parse_schedule(text, NAMED), seed, duration, NAMED)


def test_a_schedule_names_faults_with_their_distance_and_how_long_each_lasts() -> None:
    entries = parse_schedule(" kill/500ms, freeze/20s:5s ,pause/1m,crash/settle.before/2s", NAMED)
    assert entries == [
        Entry("kill", 0.5, 0.0),
        Entry("freeze", 20.0, 5.0),
        Entry("pause", 60.0, 2.0),
        Entry("crash/settle.before", 2.0, 1.0),
    ]


@pytest.mark.parametrize("text", ["", " ", ","])
def test_an_empty_schedule_has_no_faults(text: str) -> None:
    assert parse_schedule(text, NAMED) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("kill", "FAULT/EVERY"),
        ("kill/", "FAULT/EVERY"),
        ("kill/often", "FAULT/EVERY"),
        ("kill/0s", "FAULT/EVERY"),
        ("freeze/2s:", "FAULT/EVERY"),
        ("freeze/2s:long", "FAULT/EVERY"),
        ("flood/2s", "no fault; there are crash/settle.before, fill, freeze"),
        ("kill/2s:1s", "leave out :1s"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_would_be(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        parse_schedule(text, NAMED)


def test_the_distance_is_a_mean_that_varies_by_half() -> None:
    times = [each.at for each in planned("kill/2s", duration=2000.0)]
    distances = [later - earlier for earlier, later in pairwise([0.0, *times])]
    assert all(1.0 <= distance <= 3.0 for distance in distances)
    assert 950 < len(times) < 1050


def test_another_seed_makes_another_plan() -> None:
    assert planned("kill/2s", seed=1) != planned("kill/2s", seed=2)


def test_each_planned_fault_has_a_seed_of_its_own() -> None:
    seeds = [each.seed for each in planned("kill/1s,kill/1s,freeze/9s")]
    assert len(set(seeds)) == len(seeds)


def test_an_entry_more_leaves_the_times_of_the_others_as_they_were() -> None:
    alone = planned("kill/2s")
    beside = planned("kill/2s,pause/5s")
    assert [each for each in beside if each.fault == "kill"] == alone


def test_a_fault_that_lasts_longer_than_its_distance_is_healed_before_it_comes_again() -> None:
    times = [each.at for each in planned("freeze/1s:5s")]
    assert len(times) > 10
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))


def test_every_fault_of_the_suite_can_be_scheduled() -> None:
    text = ",".join(f"{name}/9s" for name in FAULTS)
    entries = parse_schedule(text, FAULTS)
    assert [entry.fault for entry in entries] == list(FAULTS)
    assert {each.fault for each in plan(entries, 1, 1000.0, FAULTS)} == set(FAULTS)


ENTRIES = st.lists(
    st.builds(
        lambda name, every, lasts: Entry(name, every, lasts if NAMED[name].lasts else 0.0),
        st.sampled_from(sorted(NAMED)),
        st.floats(0.1, 30.0),
        st.floats(0.1, 30.0),
    ),
    max_size=6,
)


@given(ENTRIES, st.integers(0, 2**32), st.floats(1.0, 120.0))
def test_any_plan_is_in_order_ends_in_time_repeats_itself_and_heals_a_scope_before_it_is_hit_again(
    entries: list[Entry], seed: int, duration: float
) -> None:
    planned = plan(entries, seed, duration, NAMED)
    assert planned == plan([replace(entry) for entry in entries], seed, duration, NAMED)
    assert [each.at for each in planned] == sorted(each.at for each in planned)
    assert all(each.at + each.lasts <= duration for each in planned)
    free_at: dict[str, float] = {}
    for each in planned:
        if each.lasts:
            scope = NAMED[each.fault].scope
            assert each.at >= free_at.get(scope, 0.0)
            free_at[scope] = each.at + each.lasts
