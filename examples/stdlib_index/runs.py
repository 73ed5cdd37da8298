"""Who ran what, written down apart from Stem: the demo counts by it whether a task was run once, twice or never.

Each executor process appends to a file of its own in the directory named by STEM_DEMO_RUNS, one line as each run begins, before
anything else: a run that is killed halfway has been noted. Without the variable nothing is written.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stem_actors import current_task

__all__ = ["VARIABLE", "Run", "note", "read_all"]

VARIABLE = "STEM_DEMO_RUNS"


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """A run that began: when (seconds since the epoch) and in which process."""

    at: float
    pid: int


def note() -> None:
    """Write down that this process begins to run a task. To be called inside of it."""
    if directory := os.environ.get(VARIABLE):
        os.write(_open(directory, os.getpid()), f"{current_task().id} {time.time():.6f}\n".encode())


@functools.cache
def _open(directory: str, pid: int) -> int:
    return os.open(Path(directory, str(pid)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def read_all(directory: Path) -> Mapping[str, Sequence[Run]]:
    """All runs by task id, in the order in which they began."""
    found: dict[str, list[Run]] = {}
    for file in directory.iterdir():
        for line in file.read_text().splitlines():
            task_id, at = line.split()
            found.setdefault(task_id, []).append(Run(float(at), int(file.name)))
    return {task_id: sorted(runs) for task_id, runs in found.items()}
