"""The pytest plugin: the fixture `stem_simulation`, and on a failure the seed and what led to it.

pytest finds it by itself where Stem is installed. A run that asks for no simulation imports nothing of Stem but this.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Unpack

import pytest

if TYPE_CHECKING:
    from stem_actors.testing.faults import Faults
    from stem_actors.testing.simulation import Simulatable, Simulation, SimulationOptions

__all__ = ["Simulations", "stem_simulation"]

_FIXTURE = "stem_simulation"
_SHOWN = 80
_SCHEDULES = 100


class Simulations:
    """Makes simulations, and closes them when the test is over. `seed` given on the command line goes before all others."""

    def __init__(self, seed: int | None = None, number: int | None = None) -> None:
        self._seed = seed
        self._number = number
        self._open: list[Simulation] = []

    def __call__(
        self, app: Simulatable, *, seed: int = 0, faults: Faults | None = None, **options: Unpack[SimulationOptions]
    ) -> Simulation:
        """One simulation of `app`. Nothing goes wrong in it unless `faults` says so; options as for `Simulation`."""
        from stem_actors.testing.simulation import Simulation  # here: most runs of pytest need none of it

        made = Simulation(app, seed=seed if self._seed is None else self._seed, faults=faults, **options)
        self._open.append(made)
        return made

    def schedules(
        self,
        app: Simulatable,
        number: int = _SCHEDULES,
        *,
        part: int = 0,
        faults: Faults | None = None,
        **options: Unpack[SimulationOptions],
    ) -> Iterator[Simulation]:
        """A simulation for each seed from 0 up, one after the other, in which everything goes wrong that can, or `faults`.

        `part` 1 goes on where 0 ends, and so on, so that a test with a parameter can share them out among processes. The command
        line may ask for more or fewer (`--stem-schedules`, in each part), or for a single seed (`--stem-seed`).
        """
        from stem_actors.testing.faults import Faults  # here: as above

        number = number if self._number is None else self._number
        for seed in range(part * number, (part + 1) * number) if self._seed is None else [self._seed]:
            yield self(app, seed=seed, faults=Faults() if faults is None else faults, **options)
            self.close()

    def close(self) -> None:
        """Close what is open, the last one first."""
        while self._open:
            self._open.pop().close()

    def report(self, test: str) -> str:
        """For people, while something is open: which schedules these were, how to have them again, and what happened."""
        return "\n".join(
            f"seed {each.seed}, after {each.now:.3f} virtual seconds\n"
            f"the same again: pytest {shlex.quote(test)} --stem-seed {each.seed}\n{each.journal.text(_SHOWN)}"
            for each in self._open
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stem", "simulations of Stem applications")
    group.addoption("--stem-seed", type=int, metavar="SEED", help="simulate the schedule of this seed, and no other")
    group.addoption("--stem-schedules", type=int, metavar="N", help="seeds that `stem_simulation.schedules` tries")


@pytest.fixture
def stem_simulation(request: pytest.FixtureRequest) -> Iterator[Simulations]:
    """Runs an application in virtual time: `run = stem_simulation(app)`, `run.enqueue(task, …)`, `run.until_quiet()`."""
    made = Simulations(request.config.getoption("--stem-seed", None), request.config.getoption("--stem-schedules", None))
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    simulations = getattr(item, "funcargs", {}).get(_FIXTURE)
    if report.when == "call" and report.failed and isinstance(simulations, Simulations):
        text = simulations.report(item.nodeid)
        if text:
            report.sections.append(("stem simulation", text))
    return report
