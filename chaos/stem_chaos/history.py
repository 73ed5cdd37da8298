"""The history of a run: every operation, in order, as each process wrote it down itself, outside the broker.

Each process appends to a file of its own, a line for each operation and at once, so that neither a broker's fault nor a SIGKILL
loses what was done before it. All processes of a run share a host, hence its monotonic clock, by which a history is sorted.
What an operation may say, verb by verb:

| verb      | phases                | written by | says                                                                          |
|-----------|-----------------------|------------|-------------------------------------------------------------------------------|
| `enqueue` | invoke, ok, fail, info| client     | detail: workload, task, queue, priority, delay, max_retries, expires_at       |
| `deliver` | ok                    | worker     | a hand-out was received; detail: queue, deaths, lapses, visibility; recovered |
| `start`   | ok                    | executor   | user code is entered; detail: task, worker                                    |
| `end`     | ok                    | executor   | user code is left; detail: outcome (`returned`, `raised`), error (its class)  |
| `settle`  | invoke, ok, fail, info| worker     | detail: queue, verdict, delay, reason, state (of the record), deaths          |
| `renew`   | invoke, ok, fail, info| worker     | detail: queue                                                                 |
| `reclaim` | ok                    | worker     | a sweep found something; detail: promoted, reclaimed, poisoned                |
| `fault`   | invoke, ok, fail      | nemesis    | invoke: it begins, ok: it is over; detail: fault, target, pids, incarnations  |
| `observe` | ok                    | client     | a record as it was read; detail: state, result, error, dead_letter            |
| `measure` | ok                    | runner     | detail: what was counted: keys, memory_bytes, descriptors, threads, processes |

`ok`: it happened. `fail`: it certainly did not. `info`: nobody knows, since the answer was lost.

What a worker writes names the incarnation, the lease and, from the hand-out of that lease, the task with its counters, in every
phase. `deaths` are the causes, in `settle` those that travel on. `recovered`: the answer that brought the hand-out was lost,
and the worker found the lease among those it holds; `fetch` numbers the fetches of a worker that brought something. A `settle`
or `renew` that ends in `fail` says the broker's `answer` (`stale`: the lease is another's, or has been settled; or `refused:
…`), one that ends in `info` the `error`. What is repeated is an operation of its own. Verdicts are `ack`, `release`, `defer`,
`retry` and `dead-letter`. Fetches promote as well as sweeps do, and do not say so.

A `fault` also says, where that is so, `everything` (the broker or the network was hit, hence every lease) and `forgets` (the
server may have lost what it had acknowledged).

A process that kills itself at a fault point (`points.py`) writes that `fault` itself, as its last words: `fault` is `point` and
`target` the point's name. An executor knows neither its lease nor the delivery count; `worker` names the worker it belongs to.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from stem_actors.errors import ConfigError

__all__ = [
    "DIRECTORY_VARIABLE",
    "CannotRead",
    "History",
    "Operation",
    "Phase",
    "Recorder",
    "RunFacts",
    "Verb",
    "read_history",
    "run_directory",
    "write_facts",
]

DIRECTORY_VARIABLE = "STEM_CHAOS_DIRECTORY"
"""Tells the processes of a cluster where the run is that they take part in."""
_OPERATIONS = "history"
_FACTS = "run.json"


class Verb(StrEnum):
    ENQUEUE = "enqueue"
    DELIVER = "deliver"
    START = "start"
    END = "end"
    SETTLE = "settle"
    RENEW = "renew"
    RECLAIM = "reclaim"
    FAULT = "fault"
    OBSERVE = "observe"
    MEASURE = "measure"


class Phase(StrEnum):
    """As Jepsen uses them."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a process did or saw.

    `call`     pairs a completion with its invocation, within one process
    `process`  who: `client`, `nemesis`, `runner`, a worker's incarnation, `executor-PID`
    `at`       seconds of the host's monotonic clock; `wall`: since the epoch, as the process's own clock had it
    `lease`    the token, as text
    """

    verb: Verb
    phase: Phase
    call: int
    process: str
    pid: int
    at: float
    wall: float
    task_id: str | None = None
    incarnation: str | None = None
    attempt: int | None = None
    delivery_count: int | None = None
    lease: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run was: all that a checker must know beside the operations. Durations in seconds.

    `quiet_from`  monotonic time of the last fault's end; None while the run goes on, or when there was none
    `workloads`   name → parameters, as the suite had them
    `duration`    seconds for which faults were to be injected
    `versions`    `new`; where nodes were of another: `old`, and `from`, as it was asked for
    `exits`       exit codes of the nodes when they were told to leave in the end; below 0: they had to be killed
    """

    suite: str
    broker: str
    seed: int
    visibility_timeout: float
    max_deliveries: int
    nodes: int
    workers: int
    concurrency: int
    started_at: float
    ended_at: float | None = None
    quiet_from: float | None = None
    workloads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schedule: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    exits: Sequence[int] = ()
    duration: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Everything that happened in one run, by time. Equal to itself alone, so that what was read out of it can be kept by it."""

    facts: RunFacts
    operations: Sequence[Operation]

    def of(self, *verbs: Verb, phase: Phase | None = None) -> Iterator[Operation]:
        """The operations with one of these verbs, and this phase, in order."""
        return (each for each in self.operations if each.verb in verbs and (phase is None or each.phase is phase))


class CannotRead(Exception):
    """The directory holds no history of a run, or a damaged one."""


class Recorder:
    """Appends the operations of one process to the history in `directory`. Any thread; survives a fork by starting a new file."""

    def __init__(self, directory: Path, process: str) -> None:
        self._directory = directory / _OPERATIONS
        self._process = process
        self._calls = itertools.count(1)
        self._opening = threading.Lock()
        self._pid = 0
        self._fd = -1

    def invoke(self, verb: Verb, **fields: Any) -> int:
        """Write down that an operation begins; the number that its completion must name."""
        call = self.next_call()
        self.write(verb, Phase.INVOKE, call, **fields)
        return call

    def happened(self, verb: Verb, **fields: Any) -> None:
        """Write down what has no beginning of its own."""
        self.write(verb, Phase.OK, self.next_call(), **fields)

    def write(self, verb: Verb, phase: Phase, call: int, **fields: Any) -> None:
        """Append one operation; `fields` are those of `Operation`, and every other one goes into its `detail`."""
        self.append(self.line(verb, phase, call, **fields))

    # ------------------------------------------------------------ in steps, for who has many or may be interrupted

    def next_call(self) -> int:
        """The number of an operation that is about to begin."""
        return next(self._calls)

    def line(self, verb: Verb, phase: Phase, call: int, **fields: Any) -> bytes:
        """An operation that happens now, as `append` wants it; `fields` as for `write`."""
        known = {name: fields.pop(name) for name in _FIELDS if name in fields}
        wire = {
            "verb": verb,
            "phase": phase,
            "call": call,
            "process": self._process,
            "pid": os.getpid(),
            "at": time.monotonic(),
            "wall": time.time(),
            **known,
            "detail": {**known.get("detail", {}), **fields},
        }
        return _encode(_without_empty(wire)).encode() + b"\n"

    def append(self, *lines: bytes) -> None:
        """Write lines down, all in one system call."""
        os.write(self.open(), b"".join(lines))

    def open(self) -> int:
        """The descriptor of this process's file. It is opened for appending: threads need not take turns."""
        if self._pid != os.getpid():
            with self._opening:
                if self._pid != os.getpid():
                    self._directory.mkdir(parents=True, exist_ok=True)
                    name = f"{self._process}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl".replace("/", "_")
                    self._fd = os.open(self._directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                    self._pid = os.getpid()
        return self._fd

    def close(self) -> None:
        """Idempotent; what is written afterwards opens a new file."""
        fd, self._fd, self._pid = self._fd, -1, 0
        with contextlib.suppress(OSError):  # never opened
            os.close(fd)


_FIELDS = ("task_id", "incarnation", "attempt", "delivery_count", "lease", "detail")
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != {}}


def run_directory() -> Path:
    """Where the run is that this process takes part in.

    Raises:
        ConfigError: nobody has said.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE, "").strip()
    if not directory:
        raise ConfigError(f"{DIRECTORY_VARIABLE} names no directory, and a process under chaos writes its history there")
    return Path(directory)


def write_facts(directory: Path, facts: RunFacts) -> None:
    """Store what a run is, in place of what stood there; a reader sees the old or the new."""
    directory.mkdir(parents=True, exist_ok=True)
    new = directory / f"{_FACTS}.new"
    new.write_text(json.dumps(asdict(facts), indent=2))
    new.replace(directory / _FACTS)


def read_history(directory: Path) -> History:
    """Read a run's history, also one that is still being written. A last line cut off by a kill is left out.

    Raises:
        CannotRead: this is no history, or a line of it is no operation.
    """
    try:
        raw = json.loads((directory / _FACTS).read_text())
        facts = RunFacts(**{**raw, "exits": tuple(raw.get("exits", ()))})
    except (OSError, ValueError, TypeError) as error:
        raise CannotRead(f"{directory} holds no history of a run: {error}") from error
    operations = [each for path in sorted((directory / _OPERATIONS).glob("*.jsonl")) for each in _read_operations(path)]
    return History(facts, sorted(operations, key=lambda operation: operation.at))


def _read_operations(path: Path) -> Iterable[Operation]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line feed was cut off
        try:
            wire = json.loads(line)
            yield Operation(**{**wire, "verb": Verb(wire["verb"]), "phase": Phase(wire["phase"])})
        except (ValueError, TypeError, KeyError) as error:
            raise CannotRead(f"{path}, line {number} is no operation: {error}") from error
