"""Fault points: named places between two steps of a worker's hot path, where a process kills itself when it is told to.

Told by a file, `points/NAME` in the directory of the run, which holds how many processes are to die there. Whoever reaches the
point first takes one of them, writes its last words into the history, and is gone by SIGKILL: no code of its own runs any more.
There are points only in processes that `probe.py` and `application.py` have made ready.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stem_chaos.history import Phase, Recorder, Verb

__all__ = ["EXECUTOR_POINTS", "POINTS", "WORKER_POINTS", "Points", "arm", "disarm", "is_armed", "write_last_words"]

WORKER_POINTS = (
    "fetch.before",  # it asks the broker for deliveries
    "fetch.after",  # it has some, and no actor knows of them
    "hand-over.before",  # it has chosen what an executor is to run
    "hand-over.after",  # the executor may run it already
    "settle.before",  # it knows how tasks ended
    "settle.step",  # a step in which the broker is told is done; whatever has to be done with it is done in the same one
    "retry.step",  # the same, where a task is to be tried again
    "settle.after",  # the broker knows, too, and no actor has heard so
    "renew.before",  # leases are to be renewed
    "renew.after",  # they are, and no actor has heard so
    "sweep.before",  # it asks the broker to promote what is due and to reclaim what has lapsed
    "sweep.after",  # the broker has done so, in one step
)
EXECUTOR_POINTS = (
    "start.before",  # it has claimed a task
    "start.after",  # it has said so in the history
    "result.before",  # the task has run, and nobody has heard of it
)
POINTS = (*WORKER_POINTS, *EXECUTOR_POINTS)

_FOLDER = "points"


class Points:
    """The points of one process. Any thread. `last_words` writes down that the process dies at the point of that name."""

    def __init__(self, directory: Path, last_words: Callable[[str], None]) -> None:
        self._directory = directory
        self._last_words = last_words
        self._here = threading.local()

    def reach(self, name: str) -> None:
        """Die here, if a process is to."""
        if not _take(self._directory, name):
            return
        try:
            self._last_words(name)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def each_step(self, *names: str) -> Iterator[None]:
        """Reach these points after each step that this thread takes meanwhile."""
        self._here.names = names
        try:
            yield
        finally:
            self._here.names = ()

    def step(self) -> None:
        """This thread has taken one."""
        for name in getattr(self._here, "names", ()):
            self.reach(name)


def write_last_words(recorder: Recorder, point: str, pids: Sequence[int], incarnations: Sequence[str] = ()) -> None:
    """Tell of a death at a point: a fault that is over as soon as it has begun, written in one step since others still run."""
    call = recorder.next_call()
    detail = {"fault": "point", "target": point, "pids": list(pids), "incarnations": list(incarnations)}
    recorder.append(*(recorder.line(Verb.FAULT, phase, call, **detail) for phase in (Phase.INVOKE, Phase.OK)))


def arm(directory: Path, name: str, times: int = 1) -> None:
    """Let so many processes die at a point: each time another one, since it is their end."""
    path = _path(directory, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{name}.new-{_self()}")
    new.write_text(str(times))
    new.replace(path)


def disarm(directory: Path, name: str) -> bool:
    """Let no more die there; False when none would have."""
    return _take(directory, name, all_of_them=True)


def is_armed(directory: Path, name: str) -> bool:
    """Whether a process would die there."""
    return _path(directory, name).exists()


def _take(directory: Path, name: str, all_of_them: bool = False) -> bool:
    """Whether this thread got hold of the point: renaming gives it to one, and what is left of it is put back."""
    taken = f"{directory}/{_FOLDER}/{name}.taken-{_self()}"
    try:
        os.rename(f"{directory}/{_FOLDER}/{name}", taken)
    except FileNotFoundError:
        return False
    times = int(Path(taken).read_text() or 1)
    if times > 1 and not all_of_them:
        arm(directory, name, times - 1)
    os.unlink(taken)
    return True


def _path(directory: Path, name: str) -> Path:
    return directory / _FOLDER / name


def _self() -> str:
    return f"{os.getpid()}-{threading.get_native_id()}"
