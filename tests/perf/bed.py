"""One system under measurement: its workers for the time of a block, and what its tasks have recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from stem_actors.clock import SystemClock
from stem_actors.errors import OperatorError
from stem_cli.bench.records import DIRECTORY, Records, Run
from tests.perf.systems import System

__all__ = ["Bed"]

_STANDSTILL = 60.0  # seconds in which no task has run, and none will
_LEAVING = 15.0


class Bed:
    """One for a process: what the tasks record goes to the directory that the environment names."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.clock = SystemClock()
        self._directory = Path(os.environ[DIRECTORY])
        self.records = Records(self._directory)
        self._log = self._directory / "worker.log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._is_kept = False
        self._numbers = 0
        self._awaited = 0

    def take_numbers(self, count: int) -> range:
        """Numbers for so many tasks, used by no others."""
        self._numbers += count
        return range(self._numbers - count, self._numbers)

    # ------------------------------------------------------------ workers

    @contextmanager
    def workers(self, is_kept: bool = False) -> Iterator[None]:
        """Its workers for the time of a block; `is_kept` starts anew which has ended, as a host's init does."""
        self._is_kept = is_kept
        try:
            for _ in range(self.system.copies):
                self._workers.append(self._start())
            yield
        finally:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *self.system.worker],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # signals are for us, and we end it
            )

    def _stop(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.terminate()
        deadline = self.clock.monotonic() + _LEAVING
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, deadline - self.clock.monotonic()))
        for process in _started_for(str(self._directory)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for worker in workers:
            worker.wait()

    def _look_after_workers(self) -> None:
        for place, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            if not self._is_kept:
                raise OperatorError(f"a worker of {self.system.title} ended with {worker.returncode}: {self._last_words()}")
            self._workers[place] = self._start()

    # ------------------------------------------------------------ waiting

    def await_runs(self, numbers: range, pause: float = 0.02) -> list[Run]:
        """Wait until these tasks have run as well as all that were awaited before, and give their runs.

        Raises:
            OperatorError: nothing has run for a minute, or a worker has ended; with the end of its log.
        """
        self._awaited += len(numbers)
        count, moved_at = -1, self.clock.monotonic()
        while (now := self.records.count()) < self._awaited:
            self._look_after_workers()
            if now != count:
                count, moved_at = now, self.clock.monotonic()
            if self.clock.monotonic() > moved_at + _STANDSTILL:
                missing = self._awaited - now
                raise OperatorError(f"{missing:,} tasks of {self.system.title} did not run: {self._last_words()}")
            time.sleep(pause)
        return self.records.of(numbers)

    def is_so_within(self, condition: Callable[[], bool], bound: float, pause: float) -> bool:
        """Look again and again until it is true; False when it was not within the bound."""
        deadline = self.clock.monotonic() + bound
        while not condition():
            if self.clock.monotonic() > deadline:
                return False
            self._look_after_workers()
            time.sleep(pause)
        return True

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-20:]) or "its log is empty"


def _started_for(directory: str) -> Iterator[psutil.Process]:
    """Every process whose environment names the directory, orphans too; not this one."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(DIRECTORY) == directory:
                yield process
