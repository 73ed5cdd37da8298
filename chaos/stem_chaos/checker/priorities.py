"""Priorities: what is more urgent is fetched first, but for one fetch in ten, which takes the least urgent first
(`ports.Intake.receive`).

Judged is what is certain. A worker has one fetch under way at a time, so each was made after the one before had come back. A more
urgent task of the same queue was passed over when it had been stored before the fetch can have begun, and was itself brought by a
fetch, of whatever worker, that had not begun when this one came back. Passing over is right when nine other fetches of the worker
lie in between. Counted here are fetches that brought something; a broker may count others too, so only those are held against it
that come twice as often as they may, and not just once.

A fetch is known by the number that its worker gave it (`fetch`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import Life, read_lives
from stem_chaos.history import History, Operation, Verb

__all__ = ["PROMISE", "check_priorities"]

PROMISE = "What is more urgent was handed out first, but for one fetch in ten."
_LEAST_DISTANCE = 5
_TOO_OFTEN = 3
_PROMOTED = 1.0  # what was delayed is among those that wait by then


class _Task(NamedTuple):
    """A task at its first hand-out; what came back is read before all others at its priority. It waited at least that long."""

    task_id: str
    priority: int
    ready: float
    until: float


class _Fetch(NamedTuple):
    """What one fetch brought from one queue, and its place among those of its worker. It was made between these two moments."""

    place: int
    began: float
    ended: float
    tasks: Sequence[_Task]


class _Waiting:
    """The tasks of one priority by when they were ready: which of them waited longest."""

    def __init__(self, tasks: Iterable[_Task]) -> None:
        by_ready = sorted(tasks, key=lambda task: task.ready)
        self._ready = [task.ready for task in by_ready]
        self._longest = list(accumulate(by_ready, _longer))

    def through(self, fetch: _Fetch) -> _Task | None:
        """One that waited before this fetch was made, and after."""
        position = bisect_right(self._ready, fetch.began)
        if position and self._longest[position - 1].until >= fetch.ended:
            return self._longest[position - 1]
        return None


def _longer(one: _Task, other: _Task) -> _Task:
    return one if one.until >= other.until else other


def check_priorities(history: History) -> Finding:
    figures = {"fetches": 0, "passed_over": 0}
    fetches, is_told = _read_fetches(history, read_lives(history))
    waiting = {queue: _waiting(by_worker.values()) for queue, by_worker in fetches.items()}

    def violations() -> Iterator[Violation]:
        for queue, by_worker in fetches.items():
            for worker, sequence in by_worker.items():
                passed = [(fetch, *pair) for fetch in sequence if (pair := _passed_over(fetch, waiting[queue])) is not None]
                figures["fetches"] += len(sequence)
                figures["passed_over"] += len(passed)
                close = [after for (before, *_), after in pairwise(passed) if after[0].place - before.place < _LEAST_DISTANCE]
                if len(close) >= _TOO_OFTEN:
                    for fetch, urgent, other in close:
                        text = (
                            f"waited with priority {urgent.priority} in queue {queue} while {worker} fetched {other.task_id} "
                            f"with {other.priority}, and did so more than once in {_LEAST_DISTANCE} fetches"
                        )
                        yield Violation(text, urgent.task_id, fetch.ended)

    reason = None if is_told else "the history does not say which hand-outs came in one fetch"
    return conclude("priorities", PROMISE, list(violations()), figures, reason)


def _waiting(sequences: Iterable[Sequence[_Fetch]]) -> Mapping[int, _Waiting]:
    """By priority, the most urgent first."""
    by_priority: dict[int, list[_Task]] = defaultdict(list)
    for sequence in sequences:
        for fetch in sequence:
            for task in fetch.tasks:
                by_priority[task.priority].append(task)
    return {priority: _Waiting(by_priority[priority]) for priority in sorted(by_priority, reverse=True)}


def _passed_over(fetch: _Fetch, waiting: Mapping[int, _Waiting]) -> tuple[_Task, _Task] | None:
    """A task that waited, and a less urgent one that was taken."""
    least = min(fetch.tasks, key=lambda task: task.priority)
    for priority, tasks in waiting.items():
        if priority > least.priority and (urgent := tasks.through(fetch)) is not None:
            return urgent, least
    return None


def _read_fetches(history: History, lives: Mapping[str, Life]) -> tuple[Mapping[str, Mapping[str, Sequence[_Fetch]]], bool]:
    """By queue and worker, in order; and whether there was nothing to tell apart, or it was told."""
    faults = read_faults(history)
    brought: dict[str, dict[int, list[Operation]]] = defaultdict(lambda: defaultdict(list))
    is_told, levels = True, set()
    for delivery in history.of(Verb.DELIVER):
        if delivery.detail.get("recovered"):
            continue
        levels.add(_priority_of(lives, delivery))
        if delivery.detail.get("fetch") is None:
            is_told = False
        else:
            brought[delivery.process][int(delivery.detail["fetch"])].append(delivery)
    found: dict[str, dict[str, list[_Fetch]]] = defaultdict(lambda: defaultdict(list))
    for worker, by_number in brought.items():
        began = float("-inf")
        for place, (_, deliveries) in enumerate(sorted(by_number.items())):
            ended = max(delivery.at for delivery in deliveries)
            tasks: dict[str, list[_Task]] = defaultdict(list)
            for delivery in deliveries:
                if (task := _first(lives, faults, delivery, began)) is not None:
                    tasks[str(delivery.detail.get("queue"))].append(task)
            for queue, of_queue in tasks.items():
                found[queue][worker].append(_Fetch(place, began, ended, of_queue))
            began = ended
    return found, is_told or len(levels) < 2


def _priority_of(lives: Mapping[str, Life], delivery: Operation) -> int:
    life = lives.get(delivery.task_id or "")
    return 0 if life is None else min(9, max(0, int(life.enqueued("priority") or 0)))


def _first(lives: Mapping[str, Life], faults: Faults, delivery: Operation, until: float) -> _Task | None:
    life = lives.get(delivery.task_id or "")
    if life is None or delivery.delivery_count != 1 or delivery.at >= faults.forgets_from(life.since):
        return None
    accepted = next((call for call in life.enqueues if call.is_ok), None)
    if accepted is None:
        return None
    delay = float(accepted.get("delay") or 0.0)
    ready = accepted.ended + (delay + _PROMOTED if delay > 0 else 0.0)
    return _Task(life.task_id, _priority_of(lives, delivery), ready, until)
