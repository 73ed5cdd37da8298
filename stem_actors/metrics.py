"""Every metric of Stem: name, kind, labels and help in one table, and the tallies that count them inside a worker.

A worker holds no registry. Each of its actors counts into a `Tally` of its own; the heartbeat sends what grew to the node, whose
registry serves `/metrics`. Label values are bounded: queues, tasks, outcomes, reasons; never ids or pids.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

__all__ = ["BUCKETS", "COUNTS", "TABLE", "Kind", "Metric", "Sample", "Tally", "growth"]


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0,
)  # fmt: skip
"""Upper bounds of histograms of seconds."""
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Upper bounds of histograms of numbers of things."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. A counter's name ends in `_total`; durations are seconds; `buckets` are upper bounds."""

    name: str
    kind: Kind
    labels: Sequence[str]
    help: str
    buckets: Sequence[float] = BUCKETS


_TASK = ("task", "queue", "worker")
_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

TABLE: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("stem_tasks_started_total", _C, _TASK, "Executions begun."),
        Metric("stem_tasks_succeeded_total", _C, _TASK, "Executions that returned."),
        Metric("stem_tasks_failed_total", _C, (*_TASK, "reason"), "Tasks that failed for good, by dead-letter reason."),
        Metric("stem_tasks_retried_total", _C, _TASK, "Retries scheduled."),
        Metric("stem_tasks_revoked_total", _C, ("task", "queue"), "Tasks cancelled by a revocation."),
        Metric("stem_tasks_expired_total", _C, ("task", "queue"), "Tasks that expired before they started."),
        Metric("stem_tasks_released_total", _C, ("task", "queue"), "Deliveries handed back uncharged."),
        Metric("stem_tasks_deferred_total", _C, ("task", "queue", "reason"), "Deliveries put off uncharged."),
        Metric(
            "stem_tasks_deduplicated_total",
            _C,
            ("task", "queue"),
            "Enqueues of unique tasks that another task's key kept out; counted in the producer (`app.client.tally`).",
        ),
        Metric(
            "stem_rate_limiter_degraded_total",
            _C,
            ("task", "queue", "scope", "mode"),
            "Rate limits that could not be asked: run anyway (fail_open) or put off (fail_closed).",
        ),
        Metric("stem_task_duration_seconds", _H, _TASK, "Start to end of a run."),
        Metric("stem_queue_latency_seconds", _H, ("task", "queue", "worker"), "Enqueued to started, first attempts."),
        Metric("stem_lease_renewed_total", _C, ("queue", "worker"), "Lease renewals."),
        Metric("stem_leases_lost_total", _C, ("queue", "worker"), "Leases found to be another's."),
        Metric("stem_results_stale_total", _C, ("queue", "worker"), "Settlements refused because the lease was another's."),
        Metric("stem_redeliveries_total", _C, ("queue", "cause"), "Deliveries handed out again: why."),
        Metric("stem_dead_letters_total", _C, ("queue", "reason"), "Tasks set aside."),
        Metric("stem_replay_count_total", _C, ("queue",), "Dead letters replayed."),
        Metric("stem_executor_deaths_total", _C, ("worker", "cause"), "Executors that died under a task or by themselves."),
        Metric(
            "stem_executor_recycled_total", _C, ("worker", "reason"), "Executors replaced after so many tasks or so much memory."
        ),
        Metric("stem_actor_restarts_total", _C, ("actor", "reason"), "Restarts by a supervisor: of whom and why."),
        Metric("stem_broker_reconnects_total", _C, ("worker",), "Times a broker that was away came back."),
        Metric("stem_settle_batch_size", _H, ("worker",), "Settlements in one step.", COUNTS),
        Metric("stem_executors", _G, ("worker", "state"), "Executor processes by state."),
        Metric("stem_mailbox_depth", _G, ("worker", "actor"), "Messages waiting in a mailbox."),
        Metric("stem_worker_inflight", _G, ("worker", "namespace"), "Deliveries held, running or not."),
        Metric("stem_worker_concurrency", _G, ("worker", "namespace"), "Executors allowed."),
        Metric("stem_worker_ready", _G, ("worker",), "1 while work can flow."),
        Metric("stem_heartbeat_timestamp_seconds", _G, ("worker",), "When the last heartbeat was published."),
        Metric("stem_queue_depth", _G, ("queue",), "Messages ready."),
        Metric("stem_queue_inflight", _G, ("queue",), "Messages leased."),
        Metric("stem_queue_delayed", _G, ("queue",), "Messages waiting for their time."),
        Metric("stem_queue_oldest_seconds", _G, ("queue",), "Age of the message that waits longest."),
        Metric("stem_dead_letter_depth", _G, ("queue",), "Dead letters kept."),
        Metric("stem_build_info", _G, ("version",), "Always 1."),
    )
}

Key: TypeAlias = tuple[str, tuple[str, ...]]
Sample: TypeAlias = list[Any]
"""`[name, [label values], number]`; for a histogram the number is `[count per bucket …, count, sum]`. Wire types only."""


class Tally:
    """Running totals of one actor. One thread counts; any thread may take a snapshot."""

    def __init__(self) -> None:
        self._totals: dict[Key, float] = {}
        self._histograms: dict[Key, list[float]] = {}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        key = (name, labels)
        self._totals[key] = self._totals.get(key, 0) + by

    def observe(self, name: str, value: float, *labels: str) -> None:
        self.observe_all(name, (value,), *labels)

    def observe_all(self, name: str, values: Sequence[float], *labels: str) -> None:
        """Put values into the buckets of one histogram."""
        bounds = TABLE[name].buckets
        cells = self._histograms.get((name, labels))
        if cells is None:
            cells = self._histograms[name, labels] = [0.0] * (len(bounds) + 3)
        for cell, count in Counter([bisect_left(bounds, value) for value in values]).items():
            cells[cell] += count
        cells[-2] += len(values)
        cells[-1] += sum(values)

    def snapshot(self) -> tuple[dict[Key, float], dict[Key, list[float]]]:
        """Copies, each consistent in itself."""
        return self._totals.copy(), {key: cells.copy() for key, cells in self._histograms.copy().items()}


Snapshot: TypeAlias = tuple[dict[Key, float], dict[Key, list[float]]]


def growth(before: Snapshot, after: Snapshot) -> list[Sample]:
    """What a node has to add to its registry to go from one snapshot to the next. Pure."""
    samples: list[Sample] = []
    for key, total in after[0].items():
        if grown := total - before[0].get(key, 0):
            samples.append([key[0], list(key[1]), grown])
    for key, cells in after[1].items():
        old = before[1].get(key)
        if old is None or old != cells:
            samples.append(
                [key[0], list(key[1]), cells if old is None else [new - was for new, was in zip(cells, old, strict=True)]]
            )
    return samples
