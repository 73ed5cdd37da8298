"""What is measured of a system, the same way for each. A function works on a bed and gives what it found."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from stem_actors.errors import OperatorError
from stem_cli.bench.records import Check, Run, check
from tests.perf.bed import Bed
from tests.perf.systems import Bulk, KeepsResults

__all__ = ["FIGURES", "MEASUREMENTS", "Figure", "Finding", "Sizes", "total"]

_FEWEST = 500  # tasks of a backlog, however small the share


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done in a round."""

    tasks: int
    singles: int = 2000
    latencies: int = 200
    kills: int = 3
    bound: float = 90.0  # seconds until a killed task is given up


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of the table. More is better of a rate, less of a time."""

    title: str
    unit: str
    is_rate: bool = False
    none: str = "–"  # what a value of None says


@dataclass(frozen=True, slots=True)
class Finding:
    """The values of a measurement by the names of its figures, and whether its tasks ran as often as they should."""

    values: Mapping[str, float | None]
    check: Check | None = None


FIGURES: Mapping[str, Figure] = {
    "throughput": Figure("no-op tasks", "/s", is_rate=True),
    "enqueue": Figure("enqueue one by one", "/s", is_rate=True),
    "bulk": Figure("enqueue in bulk", "/s", is_rate=True),
    "latency_p50": Figure("enqueue → start, p50", "ms"),
    "latency_p99": Figure("p99", "ms"),
    "recovery": Figure("killed → runs again", "s", none="not within {bound:.0f} s"),
}


def total(checks: Iterable[Check]) -> Check:
    found = list(checks)
    return Check(*(sum(getattr(each, field) for each in found) for field in ("expected", "missing", "repeated")))


def _throughput(bed: Bed, sizes: Sizes) -> Finding:
    """A backlog is there when the worker starts."""
    numbers = bed.take_numbers(max(round(sizes.tasks * bed.system.share), min(sizes.tasks, _FEWEST)))
    if isinstance(bed.system, Bulk):
        bed.system.enqueue_many(numbers)
    else:
        bed.system.enqueue("noop", numbers)
    with bed.workers():
        bed.await_runs(numbers)
        if isinstance(bed.system, KeepsResults):
            _require_result(bed, bed.system)
    runs = bed.records.of(numbers)  # again: what ran twice may have done so only at the end
    return Finding({"throughput": _rate(runs)}, check(runs, numbers))


def _rate(runs: Sequence[Run]) -> float:
    """From the first tenth or the first run of a second process, whichever is later, to the end: so without the start."""
    second = next((index for index, run in enumerate(runs) if run.process != runs[0].process), 0)
    first = min(max(len(runs) // 10, second), len(runs) // 2)
    return (len(runs) - 1 - first) / (runs[-1].at - runs[first].at)


def _require_result(bed: Bed, system: KeepsResults) -> None:
    """One that says it keeps results, and does not, would be compared for another job than it is said."""
    (number,) = bed.take_numbers(1)
    result = system.ask(number)
    if result != number:
        raise OperatorError(f"{bed.system.title} gave {result!r} as the result of a task that returned {number}")


def _enqueue(bed: Bed, sizes: Sizes) -> Finding:
    return Finding({"enqueue": _accepted(bed, sizes.singles, lambda numbers: bed.system.enqueue("noop", numbers))})


def _bulk(bed: Bed, sizes: Sizes) -> Finding:
    if not isinstance(bed.system, Bulk):
        return Finding({"bulk": None})
    return Finding({"bulk": _accepted(bed, sizes.tasks, bed.system.enqueue_many)})


def _accepted(bed: Bed, count: int, enqueue: Callable[[range], None]) -> float:
    """Tasks that the broker takes in a second, while nobody works on them."""
    enqueue(bed.take_numbers(1))  # connects
    numbers = bed.take_numbers(count)
    began = bed.clock.monotonic()
    enqueue(numbers)
    return count / (bed.clock.monotonic() - began)


def _latency(bed: Bed, sizes: Sizes) -> Finding:
    """From before a task is enqueued until its function runs, while nothing else is to be done."""
    sent_at = {}
    with bed.workers():
        _warm(bed)
        numbers = bed.take_numbers(sizes.latencies)
        for number in numbers:
            time.sleep(random.uniform(0.005, 0.015))  # in step with nobody's polling
            sent_at[number] = bed.clock.monotonic()
            only = range(number, number + 1)
            bed.system.enqueue("noop", only)
            bed.await_runs(only, pause=0.001)
    runs = bed.records.of(numbers)
    times = sorted(1000 * (run.at - sent_at[run.number]) for run in runs)
    return Finding({"latency_p50": _quantile(times, 0.5), "latency_p99": _quantile(times, 0.99)}, check(runs, numbers))


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def _recovery(bed: Bed, sizes: Sizes) -> Finding:
    """The process that executes a task is killed in its midst, until the task runs again.

    A worker that ends over it is started anew. A no-op follows every second, since some systems look for what was lost only
    when there is something to fetch; a queue in use has that.
    """
    times, checks = [], []
    with bed.workers(is_kept=True):
        for _ in range(sizes.kills):
            _warm(bed)
            held = bed.take_numbers(1)
            bed.system.enqueue("hold", held)
            first = bed.await_runs(held, pause=0.002)[0]
            time.sleep(random.uniform(0.1, 5.0))  # well into the task, and at no fixed time of anybody's timers
            killed_at = bed.clock.monotonic()
            os.kill(first.process, signal.SIGKILL)
            if not bed.is_so_within(_runs_again(bed, held), sizes.bound, pause=0.002):
                return Finding({"recovery": None})
            others = range(held.stop, bed.take_numbers(0).start)
            bed.await_runs(range(held.start, others.stop))
            times.append(bed.records.of(held)[1].at - killed_at)
            checks += [check(bed.records.of(held), held, times=2), check(bed.records.of(others), others)]
            if not checks[-1].is_well or not checks[-2].is_well:
                break  # waiting goes by numbers that no longer fit
    return Finding({"recovery": median(times)}, total(checks))


def _runs_again(bed: Bed, held: range) -> Callable[[], bool]:
    """Whether the task has run twice; with each second a no-op."""
    nudged_at = bed.clock.monotonic()

    def look() -> bool:
        nonlocal nudged_at
        if bed.clock.monotonic() > nudged_at + 1.0:
            nudged_at = bed.clock.monotonic()
            bed.system.enqueue("noop", bed.take_numbers(1))
        return len(bed.records.of(held)) > 1

    return look


def _warm(bed: Bed) -> None:
    numbers = bed.take_numbers(20)
    bed.system.enqueue("noop", numbers)
    bed.await_runs(numbers)


MEASUREMENTS: Mapping[str, Callable[[Bed, Sizes], Finding]] = {
    "throughput": _throughput,
    "enqueue": _enqueue,
    "bulk": _bulk,
    "latency": _latency,
    "recovery": _recovery,
}
