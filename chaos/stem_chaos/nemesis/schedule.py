"""Which faults a run injects, and when: read from `--schedule`, planned from a seed before the run begins.

A schedule is `FAULT/EVERY[:FOR]`, comma-separated: `kill-executor/1s,freeze-broker/20s:5s`. `EVERY` is the mean distance between
two of them, varied by half of it either way; `FOR` how long one lasts before it is healed. The same schedule, seed and duration
give the same plan, and each planned fault carries a seed of its own for its choice of target, so a replay chooses alike.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stem_actors.config import parse_duration
from stem_actors.errors import ConfigError
from stem_chaos.nemesis.fault import Fault

__all__ = ["Entry", "Planned", "parse_schedule", "plan"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One fault of a schedule. Seconds; `lasts` as the schedule or else the fault itself has it."""

    fault: str
    every: float
    lasts: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to inject, `at` seconds after the start of the run, for `lasts` seconds. `seed`: for whatever it chooses."""

    at: float
    fault: str
    lasts: float
    seed: str


def parse_schedule(text: str, faults: Mapping[str, Fault]) -> list[Entry]:
    """Read a schedule; an empty one has no faults.

    Raises:
        ConfigError: it cannot be read or names no fault that there is; the text says which do exist.
    """
    return [_entry(item.strip(), faults) for item in text.split(",") if item.strip()]


def _entry(text: str, faults: Mapping[str, Fault]) -> Entry:
    name, slash, times = text.rpartition("/")  # a fault's own name may hold a slash
    every, colon, lasts = times.partition(":")
    try:
        if not slash:
            raise ValueError(text)
        seconds = parse_duration(every)
        lasting = parse_duration(lasts) if colon else None
        if not seconds:
            raise ValueError(text)
    except ValueError:
        raise ConfigError(
            f"the schedule holds {text!r}, which is not FAULT/EVERY[:FOR] with durations above 0, such as kill-executor/1s or "
            "freeze-broker/20s:5s"
        ) from None
    fault = faults.get(name)
    if fault is None:
        raise ConfigError(f"the schedule names {name!r}, which is no fault; there are {', '.join(sorted(faults))}")
    if lasting and not fault.lasts:
        raise ConfigError(f"the schedule holds {text!r}, but {name} is over when it is done: leave out :{lasts}")
    return Entry(name, seconds, fault.lasts if lasting is None else lasting)


def plan(entries: Sequence[Entry], seed: int, duration: float, faults: Mapping[str, Fault]) -> list[Planned]:
    """All faults of a run of `duration` seconds, by time. Each is over by then, also the last ones."""
    wishes = [wish for place, entry in enumerate(entries) for wish in _wishes(entry, f"{seed}/{place}/{entry.fault}", duration)]
    free_at: dict[str, float] = {}
    planned: list[Planned] = []
    for wish in sorted(wishes, key=lambda each: each.at):
        at = wish.at
        if wish.lasts:
            scope = faults[wish.fault].scope
            at = max(at, free_at.get(scope, 0.0))
            if at + wish.lasts > duration:
                continue
            free_at[scope] = at + wish.lasts
        planned.append(Planned(at, wish.fault, wish.lasts, wish.seed))
    return sorted(planned, key=lambda each: each.at)


def _wishes(entry: Entry, seed: str, duration: float) -> list[Planned]:
    """When this entry alone would have its faults; chance of its own, so that another entry changes nothing here."""
    chance = random.Random(seed)
    wishes: list[Planned] = []
    at = entry.every * chance.uniform(0.5, 1.5)
    while at + entry.lasts <= duration:
        wishes.append(Planned(at, entry.fault, entry.lasts, f"{seed}/{len(wishes)}"))
        at += max(entry.every * chance.uniform(0.5, 1.5), entry.lasts)
    return wishes
