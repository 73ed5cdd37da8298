"""Suites: what a run consists of, one TOML file each beside this one. `Suite` is such a file, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from stem_actors.config import parse_duration
from stem_actors.errors import UsageError
from stem_chaos.workload.all import WORKLOADS
from stem_chaos.workload.workload import Workload

__all__ = ["Shape", "Suite", "load_suite", "suite_names"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the nodes of a cluster are like. Workers are those of one node, executors (`concurrency`) those of one worker."""

    nodes: int = 2
    workers: int = 1
    concurrency: int = 2
    visibility_timeout: float = 3.0
    max_deliveries: int = 5


@dataclass(frozen=True, slots=True)
class Suite:
    """A kind of run. Durations in seconds.

    `calm`, `faults`, `recovery`  the load's three parts: before the first fault, while there are some, after the last
    `patience`    how long after the load everything may take to come to rest
    `schedule`    by where a fault strikes: `nodes`, `links` to a server, and what only a private broker of one kind can suffer,
                  `sqlite`, `redis` or `postgres`
    `workloads`   name → parameters
    `brokers`     the kinds of broker it is for
    `replaces`    the nodes are replaced by others, one by one, while faults are injected
    `replica`     the private broker has one, and every second thread that enqueues waits until it has the task
    `senders`     threads that enqueue
    """

    name: str
    summary: str
    calm: float
    faults: float
    recovery: float
    patience: float
    schedule: Mapping[str, str]
    workloads: Mapping[str, Mapping[str, Any]]
    shape: Shape = field(default_factory=Shape)
    brokers: Sequence[str] = ("sqlite", "redis", "postgres")
    replaces: bool = False
    replica: bool = False
    senders: int = 2

    @property
    def load(self) -> float:
        """Seconds for which tasks are enqueued."""
        return self.calm + self.faults + self.recovery

    def schedule_on(self, technology: str, is_private: bool, has_links: bool) -> str:
        """The faults for one kind of broker, in one line."""
        places = ["nodes", *(["links"] if has_links else []), *([technology] if is_private else [])]
        return ", ".join(text for place in places if (text := self.schedule.get(place)))

    def made_workloads(self) -> list[Workload]:
        """Its workloads, with their parameters."""
        return [WORKLOADS[name](**parameters) for name, parameters in self.workloads.items()]


def suite_names() -> list[str]:
    return sorted(each.name.removesuffix(".toml") for each in files(__name__).iterdir() if each.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """The suite of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in suite_names():
        raise UsageError(f"there is no suite {name!r}; there are {', '.join(suite_names())}")
    document = tomllib.loads(files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return read_suite(name, document)


def read_suite(name: str, document: Mapping[str, Any]) -> Suite:
    """A suite as its file has it; durations are written as everywhere."""
    values = dict(document)
    for duration in ("calm", "faults", "recovery", "patience"):
        values[duration] = parse_duration(values[duration])
    shape = dict(values.pop("cluster", {}))
    if "visibility_timeout" in shape:
        shape["visibility_timeout"] = parse_duration(shape["visibility_timeout"])
    return Suite(name=name, shape=Shape(**shape), **values)
