"""Counts settlements by what they were: a batch at a time, since most of a batch is alike."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import assert_never

from stem_actors.actors.messages import Run
from stem_actors.metrics import Tally
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Expired, Failed, Release, Retry, Revoked, Succeeded, Unregistered
from stem_actors.model.record import Settlement

__all__ = ["SettlementCounter"]

_logger = logging.getLogger("stem.settler")
_UNKNOWN = "_unknown"
"""The task's label where its name is nobody's: anybody can make up names, and they must not use up the labels of real tasks."""


class _Alike:
    """What a batch holds of one task in one queue."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.waits: list[float] = []
        self.succeeded = 0


class SettlementCounter:
    """One settler's counting, into its tally."""

    def __init__(self, worker: str, tally: Tally) -> None:
        self._worker = worker
        self._tally = tally

    def count(self, settled: Sequence[tuple[Run, Settlement]]) -> None:
        """Count settlements that the broker has accepted; log the tasks that failed for good."""
        alike: dict[tuple[str, str], _Alike] = defaultdict(_Alike)
        for item in settled:
            (envelope, state, lease, _), outcome, _, started_at, seconds, _ = item[0]
            series = alike[envelope.name, lease.queue]
            if started_at:
                series.durations.append(seconds)
                if state.delivery_count == 1:
                    wait = started_at - envelope.enqueued_at
                    series.waits.append(wait if wait > 0.0 else 0.0)
            if isinstance(outcome, Succeeded):
                series.succeeded += 1
            else:
                self._count_other(*item)
        tally, worker = self._tally, self._worker
        for (task, queue), series in alike.items():
            if series.durations:
                tally.count("stem_tasks_started_total", task, queue, worker, by=len(series.durations))
                tally.observe_all("stem_task_duration_seconds", series.durations, task, queue, worker)
            if series.waits:
                tally.observe_all("stem_queue_latency_seconds", series.waits, task, queue, worker)
            if series.succeeded:
                tally.count("stem_tasks_succeeded_total", task, queue, worker, by=series.succeeded)

    def _count_other(self, run: Run, settlement: Settlement) -> None:
        queue, count = settlement.lease.queue, self._tally.count
        task = _UNKNOWN if isinstance(run.outcome, Unregistered) else run.delivery.envelope.name
        match settlement.verdict:
            case Ack():
                match run.outcome:
                    case Revoked():
                        count("stem_tasks_revoked_total", task, queue)
                    case Expired():
                        count("stem_tasks_expired_total", task, queue)
            case Retry():
                count("stem_tasks_retried_total", task, queue, self._worker)
            case Release():
                count("stem_tasks_released_total", task, queue)
            case Defer():
                count("stem_tasks_deferred_total", task, queue, type(run.outcome).__name__.lower())
            case DeadLetter(reason):
                count("stem_tasks_failed_total", task, queue, self._worker, reason)
                if not run.is_acked:  # else there was no delivery left to set aside
                    count("stem_dead_letters_total", queue, reason)
                _log_failure(run, reason)
            case _:
                assert_never(settlement.verdict)


def _log_failure(run: Run, reason: str) -> None:
    error = run.outcome.error.type if isinstance(run.outcome, Failed) else type(run.outcome).__name__
    envelope = run.delivery.envelope
    facts = {"task": envelope.name, "id": envelope.id, "attempt": run.delivery.state.attempt, "queue": envelope.queue}
    _logger.warning("task %s failed for good (%s): %s", envelope.name, reason, error, extra=facts)
