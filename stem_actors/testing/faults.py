"""What goes wrong in a simulation: how often, and by what chance.

`Faults` is what a user says; the nemesis draws from it and one seed, so that a seed is a schedule.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from stem_actors.testing.journal import Who
from stem_actors.testing.stores import Fate

__all__ = ["Faults", "Nemesis", "Victims"]

_PATIENCE = 30  # turns between the decision to hit something and the hit: so that it falls between any two messages


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, during the first `seconds` of a simulation. Durations in seconds, shares from 0 to 1.

    `lost_requests`, `lost_replies`, `repeated`, `late`   shares of the calls to the stores
    `late_by`                          how late a late reply is at most
    `every`                            mean time between two of what follows; each as often as its weight says
    `kill_actor`, `kill_executor`, `kill_worker`, `stop_worker`, `outage`, `clock_jump`   weights
    `stop_for`, `outage_for`, `jump_by`, `restart_after`   how long at most
    `run_times`                        a run goes on for so long after its function has returned, drawn between the two
    """

    seconds: float = 20.0
    lost_requests: float = 0.02
    lost_replies: float = 0.02
    repeated: float = 0.02
    late: float = 0.03
    late_by: float = 4.0
    every: float = 2.0
    kill_actor: float = 4.0
    kill_executor: float = 3.0
    kill_worker: float = 2.0
    stop_worker: float = 2.0
    outage: float = 1.0
    clock_jump: float = 1.0
    stop_for: float = 12.0
    outage_for: float = 8.0
    jump_by: float = 8.0
    restart_after: float = 5.0
    run_times: tuple[float, float] = (0.0, 0.5)

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong, and a run takes no longer than its function does."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, run_times=(0.0, 0.0))

    def but(self, **changes: object) -> Faults:
        """These faults with some of them changed: `Faults().but(kill_worker=0)`."""
        return replace(self, **changes)  # type: ignore[arg-type]  # names and types are checked by the class when it is made


class Victims(Protocol):
    """What the nemesis can do, where there is anything to do it to."""

    def kill_an_actor(self, chance: random.Random) -> None: ...
    def kill_an_executor(self, chance: random.Random) -> None: ...
    def kill_a_worker(self, chance: random.Random) -> None: ...
    def stop_a_worker(self, chance: random.Random, seconds: float) -> None: ...
    def cut_off(self, seconds: float) -> None: ...
    def jump(self, seconds: float) -> None: ...
    def lost(self, who: Who, call: str, fate: Fate) -> None:
        """A call over the network does not go as it should."""
        ...


class Nemesis:
    """Draws what goes wrong. `now` counts from the start of the simulation.

    `aims`: it is going to hit, in some turns.
    """

    def __init__(self, faults: Faults, seed: int, victims: Victims, now: Callable[[], float]) -> None:
        self._faults = faults
        self._victims = victims
        self._now = now
        self._calls = random.Random(f"{seed} calls")
        self._runs = random.Random(f"{seed} runs")
        self._hits = random.Random(f"{seed} hits")
        self._is_cut_until = 0.0
        self._over_at = faults.seconds
        self._hit_at = self._hits.expovariate(1 / faults.every) if faults.seconds else float("inf")
        self._hit_in = 0  # turns
        self.aims = False

    @property
    def is_over(self) -> bool:
        """Whether nothing will go wrong any more."""
        return self._now() >= self._over_at

    @property
    def chance(self) -> random.Random:
        """For whatever else there is to draw about runs."""
        return self._runs

    def run_time(self) -> float:
        """How long a run goes on after its function has returned."""
        low, high = self._faults.run_times
        return self._runs.uniform(low, high) if high else 0.0

    # ------------------------------------------------------------ calls

    def cut_off(self, seconds: float) -> None:
        """Nothing gets through for so long."""
        self._is_cut_until = max(self._is_cut_until, self._now() + seconds)
        self._over_at = max(self._over_at, self._is_cut_until)

    def fate_of(self, who: Who, call: str) -> Fate:
        now = self._now()
        if now < self._is_cut_until:
            return Fate.REQUEST_LOST
        if now >= self._faults.seconds:
            return Fate.ANSWERED
        faults, drawn = self._faults, self._calls.random()
        for share, fate in (
            (faults.lost_requests, Fate.REQUEST_LOST),
            (faults.lost_replies, Fate.REPLY_LOST),
            (faults.repeated, Fate.REPEATED),
            (faults.late, Fate.LATE),
        ):
            if drawn < share:
                self._victims.lost(who, call, fate)
                return fate
            drawn -= share
        return Fate.ANSWERED

    def lateness(self) -> float:
        return self._calls.uniform(0.0, self._faults.late_by)

    # ------------------------------------------------------------ hits

    def next_due(self) -> float | None:
        """When it will next do something, counted from the start; None: never, or when it is its turn."""
        return self._hit_at if not self.aims and max(self._hit_at, self._now()) < self._faults.seconds else None

    def look(self) -> None:
        """To be called when time has moved on, and while it aims before every turn: hit, if it is time.

        What is due in virtual time is done some turns later.
        """
        if not self.aims:
            if not self._hit_at <= self._now() < self._faults.seconds:
                return
            self.aims, self._hit_in = True, self._hits.randrange(_PATIENCE)
        if self._hit_in > 0:
            self._hit_in -= 1
            return
        self.aims = False
        self._hit_at += self._hits.expovariate(1 / self._faults.every)
        self._hit()

    def _hit(self) -> None:
        faults, chance, victims = self._faults, self._hits, self._victims
        hits: list[tuple[float, Callable[[], None]]] = [
            (faults.kill_actor, lambda: victims.kill_an_actor(chance)),
            (faults.kill_executor, lambda: victims.kill_an_executor(chance)),
            (faults.kill_worker, lambda: victims.kill_a_worker(chance)),
            (faults.stop_worker, lambda: victims.stop_a_worker(chance, chance.uniform(0.0, faults.stop_for))),
            (faults.outage, lambda: victims.cut_off(chance.uniform(0.0, faults.outage_for))),
            (faults.clock_jump, lambda: victims.jump(chance.uniform(0.0, faults.jump_by))),
        ]
        weights = [weight for weight, _ in hits]
        if any(weights):
            ((_, hit),) = chance.choices(hits, weights)
            hit()

    def restart_after(self) -> float:
        """How long a worker that died stays dead."""
        return self._hits.uniform(0.2, max(0.2, self._faults.restart_after))
