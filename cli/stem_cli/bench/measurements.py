"""What `stem bench` measures. Each function works on a bed, takes raw and real figures in turns, and gives what it found."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from stem_actors.errors import UsageError
from stem_cli.bench import raw
from stem_cli.bench.bed import EXECUTORS, Bed
from stem_cli.bench.records import Check, Run, check
from stem_cli.parsers.installation import MEASUREMENTS

__all__ = ["FULL", "QUICK", "Figure", "Sizes", "chosen", "measure", "steps"]

_BALLAST = "x" * 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done."""

    rounds: int
    tasks: int
    singles: int
    latencies: int
    waits: int
    kills: int
    idle: float


FULL = Sizes(rounds=3, tasks=20_000, singles=1000, latencies=200, waits=2000, kills=5, idle=8.0)
QUICK = Sizes(rounds=1, tasks=4000, singles=200, latencies=50, waits=2000, kills=2, idle=2.0)
_COMES_TO_REST = 4.0  # seconds in which a node that has just started still imports, connects, and reads what is stored


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `value` is the median of `samples`; `raw` is what the broker alone does in the same unit, `raw_what` how.

    `ratio` is how near to the raw figure it comes: 1 is as fast as the broker alone, whether more is better or less.
    """

    name: str
    text: str
    unit: str
    value: float | None
    samples: Sequence[float] = ()
    raw: float | None = None
    raw_what: str | None = None
    ratio: float | None = None
    check: Check | None = None
    note: str | None = None
    details: Mapping[str, float] = field(default_factory=dict)


def measure(names: Sequence[str], bed: Bed, sizes: Sizes, step: Callable[[str], None]) -> Iterator[Figure]:
    """The figures of these measurements. `step` is told at each round what begins."""
    for name in names:
        yield from _MEASUREMENTS[name](bed, sizes, partial(_told, step, name))


def _told(step: Callable[[str], None], name: str, text: str) -> None:
    step(f"{name}: {text}")


def steps(names: Sequence[str], sizes: Sizes) -> int:
    """How often `measure` calls `step`."""
    return sum(1 if name in ("latency", "recovery", "idle") else sizes.rounds for name in names)


Step = Callable[[str], None]


def _throughput(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    yield _drained("throughput", "no-op tasks", bed, sizes, step, None)


def _payload(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    yield _drained("payload", "no-op tasks with 1 KiB", bed, sizes, step, _BALLAST)


def _drained(name: str, text: str, bed: Bed, sizes: Sizes, step: Step, ballast: str | None) -> Figure:
    """A backlog is there when the worker starts; counted between its first tenth and its end, so without the start."""
    rates, raws, checks, costs = [], [], [], []
    for number in range(sizes.rounds):
        step(f"round {number + 1}")
        raws.append(raw.claim_and_settle(bed.stores, bed.clock, sizes.tasks, ballast))
        numbers = bed.take_numbers(sizes.tasks)
        bed.tasks.app.enqueue_many(bed.noop.call(each, ballast) if ballast else bed.noop.call(each) for each in numbers)
        with bed.worker(is_ready=False) as node:
            begun = bed.await_some(len(numbers) // 10)
            before = _processor_times(node)
            bed.await_runs(numbers)
            costs.append(_cost(before, _processor_times(node), len(numbers) - begun))
        runs = bed.records.of(numbers)  # again: what ran twice may have done so only at the end
        rates.append(_rate_after_first_tenth(runs))
        checks.append(check(runs, numbers))
    figure = _rate(name, f"{text}, 1 worker × {EXECUTORS} executors", rates, raws, "claim 200 + delete", checks)
    return replace(figure, details={key: median(cost[key] for cost in costs) for key in costs[0]})


def _cost(before: Mapping[str, float], after: Mapping[str, float], tasks: int) -> dict[str, float]:
    """Microseconds of processor time for each task, by kind of process: steadier than the rate on a busy machine."""
    return {f"{kind}MicrosecondsPerTask": 1e6 * (after[kind] - before[kind]) / max(1, tasks) for kind in after}


def _rate_after_first_tenth(runs: Sequence[Run]) -> float:
    first = len(runs) // 10
    return (len(runs) - 1 - first) / max(1e-9, runs[-1].at - runs[first].at)


def _enqueue(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    rates, raws = [], []
    for number in range(sizes.rounds):
        step(f"round {number + 1}")
        raws.append(raw.publish_singly(bed.stores, bed.clock, sizes.singles))
        began = bed.clock.monotonic()
        for each in bed.take_numbers(sizes.singles):
            bed.noop.enqueue(each)
        rates.append(sizes.singles / (bed.clock.monotonic() - began))
        bed.clear()
    yield _rate("enqueue", "enqueue, one by one", rates, raws, "publish 1")


def _bulk(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    rates, raws = [], []
    for number in range(sizes.rounds):
        step(f"round {number + 1}")
        raws.append(raw.publish_bulk(bed.stores, bed.clock, sizes.tasks))
        numbers = bed.take_numbers(sizes.tasks)
        began = bed.clock.monotonic()
        bed.tasks.app.enqueue_many(bed.noop.call(each) for each in numbers)
        rates.append(sizes.tasks / (bed.clock.monotonic() - began))
        bed.clear()
    yield _rate("bulk", "enqueue_many", rates, raws, "publish 1,000")


def _latency(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    """From before `enqueue` until the task function runs, while nothing else is to be done."""
    step("one by one")
    hops = sorted(raw.hops(bed.stores, bed.clock, sizes.latencies))
    numbers, sent_at = bed.take_numbers(sizes.latencies), {}
    with bed.worker():
        for each in numbers:
            time.sleep(random.uniform(0.005, 0.015))
            sent_at[each] = bed.clock.monotonic()
            bed.noop.enqueue(each)
            bed.await_runs(range(each, each + 1), pause=0.001)
    runs = bed.records.of(numbers)
    seconds = sorted(run.at - sent_at[run.number] for run in runs)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield _time(
            f"latency_{name}",
            f"enqueue → start when idle, {name}",
            "ms",
            [1000 * _quantile(seconds, share)],
            1000 * _quantile(hops, share),
            "publish → received",
            check(runs, numbers),
        )


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def _async(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    samples, checks = [], []
    with bed.worker("async_app"):
        warming = bed.take_numbers(10)
        bed.tasks.async_app.enqueue_many(bed.wait.call(each) for each in warming)
        bed.await_runs(warming)
        for number in range(sizes.rounds):
            step(f"round {number + 1}")
            numbers = bed.take_numbers(sizes.waits)
            began = bed.clock.monotonic()
            bed.tasks.async_app.enqueue_many(bed.wait.call(each) for each in numbers)
            runs = bed.await_runs(numbers)
            samples.append(runs[-1].at - began)
            checks.append(check(runs, numbers))
    text = f"{sizes.waits:,} async tasks of {bed.tasks.WAIT * 1000:.0f} ms"
    yield _time("async", text, "s", samples, bed.tasks.WAIT, "one of them", _sum(checks))


def _recovery(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    """An executor is killed in the midst of a task, until that task runs again."""
    step("killing executors")
    samples, checks = [], []
    with bed.worker():
        for each in bed.take_numbers(sizes.kills):
            number = range(each, each + 1)
            bed.hold.enqueue(each)
            (first,) = bed.await_runs(number, pause=0.002)
            time.sleep(0.1)
            killed_at = bed.clock.monotonic()
            os.kill(first.process, signal.SIGKILL)
            runs = bed.await_runs(number, pause=0.002)
            samples.append(1000 * (runs[-1].at - killed_at))
            checks.append(check(runs, number, times=2))
            time.sleep(0.5)  # until the executor has been replaced
    yield Figure("recovery", "executor killed → its task runs again", "ms", median(samples), samples, check=_sum(checks))


def _idle(bed: Bed, sizes: Sizes, step: Step) -> Iterator[Figure]:
    step("waiting")
    if bed.is_memory:
        why = "a memory broker's worker runs inside the program"
        yield Figure("idle_cpu", "idle node, processor", "% of a core", None, note=why)
        yield Figure("idle_pss", "idle node, memory", "MiB", None, note=why)
        return
    with bed.worker() as node:
        assert node is not None
        time.sleep(_COMES_TO_REST)
        before, began = _processor_times(node), bed.clock.monotonic()
        time.sleep(sizes.idle)
        spent = sum(_processor_times(node).values()) - sum(before.values())
        share = 100 * spent / (bed.clock.monotonic() - began)
        memory = sum(_proportional_size(process) for processes in _tree(node).values() for process in processes) / 2**20
    yield Figure("idle_cpu", "idle node, processor", "% of a core", share, [share])
    yield Figure("idle_pss", f"idle node + worker + {EXECUTORS} executors, PSS", "MiB", memory, [memory])


def _tree(node: int) -> dict[str, list[psutil.Process]]:
    """A node's processes by kind: itself, its worker, and what that has started."""
    root = psutil.Process(node)
    workers = root.children()
    return {
        "node": [root],
        "worker": workers,
        "executors": [process for worker in workers for process in worker.children(recursive=True)],
    }


def _processor_times(node: int | None) -> dict[str, float]:
    """Seconds that all threads have spent, by kind of process; nothing when the worker is no process of its own."""
    tree = {} if node is None else _tree(node)
    return {kind: sum(map(_processor_time, processes)) for kind, processes in tree.items()}


def _processor_time(process: psutil.Process) -> float:
    """Exact where the scheduler tells, else in its ticks."""
    with suppress(psutil.NoSuchProcess):
        return _scheduled(process.pid) or sum(process.cpu_times()[:2])
    return 0.0


def _scheduled(pid: int) -> float:
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            total += int(file.read_text().split()[0])
    return total / 1e9


def _proportional_size(process: psutil.Process) -> int:
    """Memory with what is shared counted once over all who share it; where the system cannot say, all of it."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    return 0


def _rate(
    name: str, text: str, rates: Sequence[float], raws: Sequence[float], raw_what: str, checks: Sequence[Check] = ()
) -> Figure:
    value, most = median(rates), median(raws)
    return Figure(name, text, "/s", value, rates, most, raw_what, value / most, _sum(checks) if checks else None)


def _time(name: str, text: str, unit: str, samples: Sequence[float], least: float, raw_what: str, checked: Check) -> Figure:
    value = median(samples)
    return Figure(name, text, unit, value, samples, least, raw_what, least / value, checked)


def _sum(checks: Sequence[Check]) -> Check:
    return Check(*(sum(getattr(each, field) for each in checks) for field in ("expected", "missing", "repeated")))


_MEASUREMENTS: Mapping[str, Callable[[Bed, Sizes, Step], Iterator[Figure]]] = {
    "throughput": _throughput,
    "payload": _payload,
    "enqueue": _enqueue,
    "bulk": _bulk,
    "latency": _latency,
    "async": _async,
    "recovery": _recovery,
    "idle": _idle,
}


def chosen(what: str | None) -> list[str]:
    """The measurements that `--what` names, in the order of the table."""
    named = MEASUREMENTS if what is None else [word.strip() for word in what.split(",") if word.strip()]
    unknown = [name for name in named if name not in _MEASUREMENTS]
    if unknown or not named:
        raise UsageError(f"--what is {what!r}; the measurements are {', '.join(MEASUREMENTS)}")
    return [name for name in MEASUREMENTS if name in named]
