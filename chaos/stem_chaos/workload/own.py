"""The operator's own tasks, as a file describes them: TOML, or JSON lines as a program would write them down.

    rate = 20                          # calls a second (10)

    [[task]]
    name = "shop.tasks.send_mail"      # this alone is enough
    args = ["a@b.c"]

    [[task]]
    name = "shop.tasks.build_report"
    kwargs = { month = "2025-01" }
    weight = 0.1                       # a tenth as often as one with weight 1
    expect = "succeeded"               # else any end will do

    [[task]]
    name = "shop.tasks.close_books"
    count = 3                          # exactly so often, spread over the run, beside the others

In JSON lines each line is one such task, and the rate is the usual one.
"""

from __future__ import annotations

import heapq
import json
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

from stem_actors.errors import UsageError
from stem_chaos.checker.finding import Checker
from stem_chaos.workload.workload import Enqueue, arrivals

__all__ = ["Own", "OwnTask", "read_workload"]

_RATE = 10.0
_ENDS = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class OwnTask:
    """One kind of call. Queue, priority, retries and delay (seconds) are the task's own unless given."""

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    count: int | None = None
    queue: str | None = None
    priority: int | None = None
    max_retries: int | None = None
    delay: float | None = None
    expect: str | None = None

    def at(self, moment: float) -> Enqueue:
        """A call at this moment."""
        options = {"queue": self.queue, "priority": self.priority, "max_retries": self.max_retries, "countdown": self.delay}
        given = {name: value for name, value in options.items() if value is not None}
        return Enqueue(moment, self.name, self.args, self.kwargs, given, self.expect)


@dataclass(frozen=True, slots=True)
class Own:
    """`rate`: calls a second, of all tasks without a count together."""

    app: str
    tasks: Sequence[OwnTask]
    rate: float = _RATE

    name: ClassVar[str] = "own"

    @property
    def queues(self) -> set[str]:
        """The queues that its tasks are sent to by name; those that the tasks themselves name are the application's to know."""
        return {task.queue for task in self.tasks if task.queue is not None}

    def prepare(self, directory: Path) -> None:
        """Whatever these tasks need is there already."""

    def operations(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        counted = [task.at(chance.uniform(0, duration)) for task in self.tasks for _ in range(task.count or 0)]
        return heapq.merge(sorted(counted, key=attrgetter("at")), self._weighted(chance, duration), key=attrgetter("at"))

    def _weighted(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        tasks = [task for task in self.tasks if task.count is None]
        if tasks:
            weights = [task.weight for task in tasks]
            for at in arrivals(chance, self.rate, duration):
                yield chance.choices(tasks, weights)[0].at(at)

    def observe(self, directory: Path) -> Mapping[str, Any]:
        return {}

    def checkers(self) -> Sequence[Checker]:
        return ()


def read_workload(path: Path, app: str) -> Own:
    """Read the file of an operator.

    Raises:
        UsageError: it cannot be read, or describes no workload; it names the file, the task and what would fit.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the workload {path} cannot be read: {error}") from error
    document = _lines(path, text) if path.suffix in (".jsonl", ".ndjson") else _toml(path, text)
    unknown = sorted(set(document) - {"rate", "task"})
    if unknown:
        raise UsageError(f"{path}: {unknown[0]!r} means nothing here; there are `rate` and `[[task]]`")
    rate, entries = document.get("rate", _RATE), document.get("task", [])
    if not _is_number(rate) or rate <= 0:
        raise UsageError(f"{path}: rate is {rate!r}, and has to be a number of calls a second above 0")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{path} names no task. The least there can be: [[task]] and below it name = "shop.tasks.send_mail"')
    return Own(app, [_read_task(entry, f"{path}, task {number}") for number, entry in enumerate(entries, 1)], float(rate))


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error} (JSON lines are told by their suffix, .jsonl)") from error


def _lines(path: Path, text: str) -> dict[str, Any]:
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is no JSON: {error}") from error
    return {"task": entries}


def _read_task(entry: Any, where: str) -> OwnTask:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is {entry!r}; a task is a table such as {{name = 'shop.tasks.send_mail', args = [1]}}")
    known = [each.name for each in fields(OwnTask)]
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise UsageError(f"{where}: {unknown[0]!r} means nothing here; there are {', '.join(known)}")
    if "name" not in entry:
        raise UsageError(f"{where} has no name")
    for name, (is_right, wanted) in _WANTED.items():
        if name in entry and not is_right(entry[name]):
            raise UsageError(f"{where}: {name} is {entry[name]!r}, and has to be {wanted}")
    return OwnTask(**entry)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_WANTED: Mapping[str, tuple[Any, str]] = {
    "name": (lambda value: isinstance(value, str) and value != "", "the name of a task"),
    "args": (lambda value: isinstance(value, list), "a list"),
    "kwargs": (lambda value: isinstance(value, dict), "a table"),
    "weight": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "count": (_is_count, "a whole number from 0"),
    "queue": (lambda value: isinstance(value, str) and value != "", "the name of a queue"),
    "priority": (lambda value: _is_count(value) and value <= 9, "a whole number from 0 to 9"),
    "max_retries": (_is_count, "a whole number from 0"),
    "delay": (lambda value: _is_number(value) and value >= 0, "a number of seconds from 0"),
    "expect": (lambda value: value in _ENDS, f"one of {', '.join(_ENDS)}"),
}
