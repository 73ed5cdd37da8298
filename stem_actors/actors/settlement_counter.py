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


class SettlementCounter:
    """One settler's counting, into its tally."""

    def __init__(self, worker: str, tally: Tally) -> None:
        self._worker = worker
        self._tally = tally

    def count(self, settled: Sequence[tuple[Run, Settlement]]) -> None:
        """Count settlements that the broker has accepted; log the tasks that failed for good."""
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        waits: dict[tuple[str, str], list[float]] = defaultdict(list)
        succeeded: dict[tuple[str, str], int] = defaultdict(int)
        for run, settlement in settled:
            delivery = run.delivery
            series = delivery.envelope.name, settlement.lease.queue
            if run.started_at:
                durations[series].append(run.seconds)
                if delivery.state.delivery_count == 1:
                    waits[series].append(max(0.0, run.started_at - delivery.envelope.enqueued_at))
            if isinstance(run.outcome, Succeeded):
                succeeded[series] += 1
            else:
                self._count_other(run, settlement)
        for (task, queue), seconds in durations.items():
            self._tally.count("stem_tasks_started_total", task, queue, self._worker, by=len(seconds))
            self._tally.observe_all("stem_task_duration_seconds", seconds, task, queue, self._worker)
        for (task, queue), seconds in waits.items():
            self._tally.observe_all("stem_queue_latency_seconds", seconds, task, queue, self._worker)
        for (task, queue), number in succeeded.items():
            self._tally.count("stem_tasks_succeeded_total", task, queue, self._worker, by=number)

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
