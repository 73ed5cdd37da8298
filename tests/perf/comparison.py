"""The rounds of a comparison: every system in turn, each measurement in a process of its own and on an empty server."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from statistics import median
from typing import Any

from stem_actors.errors import OperatorError
from stem_cli.bench.records import DIRECTORY, Check
from tests.perf.environment import Environment
from tests.perf.measurements import FIGURES, Sizes, total
from tests.perf.servers import Server
from tests.perf.systems import BROKER

__all__ = ["Plan", "Result", "compare", "ratio"]

_LONGEST = 1200.0  # seconds for one measurement of one system
_LEAVING = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and how often."""

    systems: Sequence[str]
    measurements: Sequence[str]
    rounds: int
    sizes: Sizes


@dataclass(slots=True)
class Result:
    """All that was found of a system. A sample for each round: None where it could not, or not within the bound."""

    title: str
    versions: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    keeps_results: bool = True
    samples: dict[str, dict[int, float | None]] = field(default_factory=lambda: {name: {} for name in FIGURES})
    checks: dict[str, Check] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # by measurement; it is not tried again

    @property
    def is_well(self) -> bool:
        return not self.failures and all(check.is_well for check in self.checks.values())

    def value(self, figure: str) -> float | None:
        """The median, where what was not within the bound counts as later than all else; None when that is half of it."""
        samples = [inf if sample is None else sample for sample in self.samples[figure].values()]
        middle = median(samples) if samples else inf
        return None if middle == inf else middle

    def is_settled(self, measurement: str) -> bool:
        """Whether another round would only say again that it fails, cannot, or takes longer than the bound."""
        return measurement in self.failures or None in self.samples.get(measurement, {}).values()

    def add(self, measurement: str, number: int, told: Mapping[str, Any]) -> None:
        self.title, self.versions, self.share = told["title"], told["versions"], told["share"]
        self.keeps_results = told["keeps_results"]
        for figure, value in told["values"].items():
            self.samples[figure][number] = value
        if told["check"] is not None:
            before = self.checks.get(measurement, Check(0, 0, 0))
            self.checks[measurement] = total([before, Check(**told["check"])])


def ratio(result: Result, stem: Result, figure: str) -> float | None:
    """How many times better Stem is: the median over the rounds, since within one the machine was the same for both."""
    theirs, ours = result.samples[figure], stem.samples[figure]
    pairs = [(theirs[number], ours[number]) for number in theirs if number in ours]
    ratios = [own / other if FIGURES[figure].is_rate else other / own for other, own in pairs if other and own]
    return median(ratios) if ratios else None


def compare(plan: Plan, environment: Environment, server: Server, say: Callable[[str], None]) -> dict[str, Result]:
    """Measure, and tell of each step. What fails with one system is kept with its result."""
    results = {name: Result(name) for name in plan.systems}
    steps = plan.rounds * len(plan.measurements) * len(plan.systems)
    step = 0
    for number in range(plan.rounds):
        for measurement in plan.measurements:
            for name, result in results.items():
                step += 1
                if result.is_settled(measurement):
                    continue
                try:
                    told = _trial(name, measurement, plan.sizes, environment, server)
                except OperatorError as error:
                    result.failures[measurement] = str(error)
                    found = "failed"
                else:
                    result.add(measurement, number, told)
                    found = ", ".join(_told(figure, value, plan.sizes) for figure, value in told["values"].items())
                say(f"{step}/{steps}  round {number + 1}, {measurement}: {result.title}: {found}")
    return results


def _told(figure: str, value: float | None, sizes: Sizes) -> str:
    kind = FIGURES[figure]
    return kind.none.format(bound=sizes.bound) if value is None else f"{value:,.3f} {kind.unit}"


def _trial(name: str, measurement: str, sizes: Sizes, environment: Environment, server: Server) -> Mapping[str, Any]:
    server.empty()
    with tempfile.TemporaryDirectory(prefix="stem-perf-", ignore_cleanup_errors=True) as directory:
        process = subprocess.Popen(
            [str(environment.python), "-m", "tests.perf.trial", name, measurement, json.dumps(asdict(sizes))],
            cwd=directory,
            env={**environment.variables(), BROKER: server.url, DIRECTORY: directory},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; it is told below, once
        )
        try:
            output, errors = process.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired as error:
            raise OperatorError(f"not done within {_LONGEST:.0f} s") from error
        finally:
            _end(process)
    if process.returncode != 0:
        raise OperatorError("\n".join(errors.strip().splitlines()[-20:]))
    found: Mapping[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _end(process: subprocess.Popen[str]) -> None:
    """End a trial that still runs; it ends its worker."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
