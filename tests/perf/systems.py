"""What the comparison asks of a system, which systems there are, and what all of them are told alike.

A system is a module below `peers`: its application, with the tasks of tests/perf/tasks.py, as its workers import it; and one
class, by which the comparison starts those workers and enqueues. To add one, write the module and name it in `SYSTEMS` and in
`ON_BROKER`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Literal, Protocol, runtime_checkable

__all__ = [
    "BROKER",
    "EXECUTORS",
    "LAPSE",
    "ON_BROKER",
    "PATIENCE",
    "RESULT_TTL",
    "STEM",
    "SYSTEMS",
    "Bulk",
    "KeepsResults",
    "System",
    "TaskName",
    "broker_url",
    "load",
]

BROKER = "PERF_BROKER_URL"  # the variable that tells workers and producers where
EXECUTORS = 2
RESULT_TTL = 600  # seconds that results are kept
LAPSE = 10.0  # seconds without a sign of life until a task is somebody else's, where a system can be told
PATIENCE = 10.0  # seconds for one result

TaskName = Literal["noop", "hold"]

STEM = "stem"
SYSTEMS = {
    STEM: "tests.perf.peers.stem:StemSystem",
    "celery": "tests.perf.peers.celery:CelerySystem",
    "dramatiq": "tests.perf.peers.dramatiq:DramatiqSystem",
    "taskiq": "tests.perf.peers.taskiq:TaskiqSystem",
    "rq": "tests.perf.peers.rq:RqSystem",
    "rq-simple": "tests.perf.peers.rq:RqSimpleSystem",
    "procrastinate": "tests.perf.peers.procrastinate:ProcrastinateSystem",
    "pgqueuer": "tests.perf.peers.pgqueuer:PgQueuerSystem",
    "chancy": "tests.perf.peers.chancy:ChancySystem",
}
ON_BROKER = {
    "redis": [STEM, "celery", "dramatiq", "taskiq", "rq", "rq-simple"],
    "postgres": [STEM, "procrastinate", "pgqueuer", "chancy"],
}


class System(Protocol):
    """A producer of one system, and how to start its workers. Of one thread."""

    title: str
    distributions: Sequence[str]  # whose versions say what was measured
    share: float  # of the tasks of a backlog, so that each takes some seconds for its own
    worker: Sequence[str]  # after `python -m`: a worker, until SIGTERM
    copies: int = 1  # workers to start, so that two processes execute

    def enqueue(self, task: TaskName, numbers: range) -> None:
        """Enqueue tasks with these numbers one by one, each accepted before the next is sent."""
        ...


@runtime_checkable
class KeepsResults(Protocol):
    """A system that keeps what a task returned."""

    def ask(self, number: int) -> object:
        """Enqueue a no-op, and give its result when it has run."""
        ...


@runtime_checkable
class Bulk(Protocol):
    """A system that takes many tasks in one step."""

    def enqueue_many(self, numbers: range) -> None:
        """Enqueue no-ops with these numbers."""
        ...


def broker_url() -> str:
    return os.environ[BROKER]


def load(name: str) -> System:
    """A producer; where the system is installed, and the environment names the broker."""
    module, _, kind = SYSTEMS[name].partition(":")
    system: System = getattr(import_module(module), kind)()
    return system
