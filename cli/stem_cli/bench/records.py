"""What the tasks write of themselves, and reading it: how many, when, by whom, and whether each ran exactly once.

Imported by every executor, so it imports little.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stem_actors.clock import SystemClock

__all__ = ["DIRECTORY", "RECORD", "Check", "Records", "Run", "check", "record"]

DIRECTORY = "STEM_BENCH_DIRECTORY"  # the variable that tells executors where
RECORD = struct.Struct("<Qd")  # which task, and when by the host's monotonic clock

_clock = SystemClock()
_files: dict[int, int] = {}  # by process, since an executor may be forked from one that has written


def record(number: int) -> None:
    """Write that this task runs now, into a file of this process."""
    process = os.getpid()
    file = _files.get(process)
    if file is None:
        path = os.path.join(os.environ[DIRECTORY], f"{process}.records")
        file = _files[process] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, RECORD.pack(number, _clock.monotonic()))


class Run(NamedTuple):
    """One run of one task. `at` by the host's monotonic clock, in seconds."""

    number: int
    at: float
    process: int


@dataclass(frozen=True, slots=True)
class Check:
    """Which of the tasks ran how often. `repeated` counts runs beyond the first."""

    expected: int
    missing: int
    repeated: int

    @property
    def is_well(self) -> bool:
        return not (self.missing or self.repeated)


class Records:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def clear(self) -> None:
        """Forget all runs; while no executor is there, since they keep their files open."""
        for entry in self._entries():
            os.unlink(entry.path)

    def count(self) -> int:
        """How many runs there are; cheap, by the size of the files."""
        return sum(entry.stat().st_size for entry in self._entries()) // RECORD.size

    def read(self) -> list[Run]:
        """All runs, in the order in which they happened."""
        runs = []
        for entry in self._entries():
            raw, process = Path(entry.path).read_bytes(), int(entry.name.partition(".")[0])
            whole = len(raw) - len(raw) % RECORD.size
            runs += [Run(number, at, process) for number, at in RECORD.iter_unpack(raw[:whole])]
        return sorted(runs, key=lambda run: run.at)

    def _entries(self) -> Iterable[os.DirEntry[str]]:
        with os.scandir(self._directory) as entries:
            return [entry for entry in entries if entry.name.endswith(".records")]

    def of(self, numbers: range) -> list[Run]:
        """The runs of the tasks with these numbers, in the order in which they happened."""
        return [run for run in self.read() if run.number in numbers]


def check(runs: Iterable[Run], numbers: range, times: int = 1) -> Check:
    """Whether each of these tasks ran, and so many times."""
    counts = Counter(run.number for run in runs)
    missing = sum(max(0, times - counts[number]) for number in numbers)
    return Check(len(numbers), missing, sum(max(0, count - times) for count in counts.values()))
