"""One node of a cluster: its `stem-node` process, through all its lives, and the processes below it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stem_chaos.clock import SteppedClock
from stem_chaos.link import Proxy

__all__ = ["Node", "WorkerProcess", "is_running"]

_USAGE = 64
_ANSWER = 2.0
_LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker process as it is right now. Id and incarnation are None until it has reported for the first time."""

    pid: int
    worker_id: str | None
    incarnation: str | None
    executors: frozenset[int]

    def is_alive(self) -> bool:
        return is_running(self.pid)


class Node:
    """A `stem-node` that is started again whenever it has ended.

    `command`, `environment`  the program with its arguments, and all its variables
    `link`, `clock`           its own way to the broker, if there is a proxy; its own wall clock, if that can be stepped
    `exits`                   the codes of those lives that it ended itself
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        link: Proxy | None = None,
        clock: SteppedClock | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.log = log
        self.link = link
        self.clock = clock
        self.exits: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()
        self._log_start = 0
        self._is_wanted = True
        self._is_held = False
        self._known: dict[tuple[int, float], tuple[str, str]] = {}  # a worker process: id and incarnation, which never change

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def refused(self) -> str | None:
        """What it said when it refused to work at all, with these settings or this application."""
        return self._last_lines() if _USAGE in self.exits else None

    # ------------------------------------------------------------ its life

    def keep_alive(self) -> None:
        """Start it, if it does not run and was not told to leave."""
        with self._lock:
            if not self._is_wanted or self._is_held or self.pid is not None:
                return
            if self._process is not None:
                self.exits.append(self._process.returncode)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    self.command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the run's terminal is for the run
                )

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. `keep_alive` starts it again."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None

    def hold_down(self) -> None:
        """Kill it, and do not start it again before `let_up`."""
        with self._lock:
            self._is_held = True
            self.kill()

    def let_up(self) -> None:
        with self._lock:
            self._is_held = False
            self.keep_alive()

    def send(self, number: int) -> None:
        """A signal for the node's process alone."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)

    def leave(self) -> None:
        """Tell it to leave; it is not started again."""
        with self._lock:
            self._is_wanted = False
            self.send(signal.SIGTERM)

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has left. One that is still there after `timeout` seconds is killed."""
        process = self._process
        if process is None:
            return 0
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def restart(self, command: Sequence[str], environment: Mapping[str, str], timeout: float) -> int:
        """Let it leave and start another program in its place, as an upgrade does; the exit code of the old one."""
        self.leave()
        code = self.wait(timeout)
        with self._lock:
            self.command, self.environment = list(command), dict(environment)
            self._process, self._is_wanted = None, True
        self.keep_alive()
        return code

    # ------------------------------------------------------------ what it says

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of one of its pages. Raises OSError when it does not answer."""
        address = self._admin_address()
        if address is None:
            raise ConnectionError(f"{self.name} has no admin server yet")
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=_ANSWER) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def is_ready(self) -> bool:
        try:
            return self.pid is not None and self.get("/readyz")[0] == 200
        except OSError:
            return False

    def _admin_address(self) -> str | None:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(self._log_start)
            for line in log:
                if b'"admin"' in line and line.endswith(b"\n"):
                    with suppress(ValueError):
                        return str(json.loads(line)["admin"])
        return None

    def _last_lines(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LAST_LINES:])

    # ------------------------------------------------------------ the processes below it

    def workers(self) -> list[WorkerProcess]:
        """Its workers, in the order of their ids."""
        pid = self.pid
        if pid is None:
            return []
        processes = [(child.pid, *_below(child)) for child in _children(pid) if _says(child, "stem_actors.worker")]
        if any((worker, created) not in self._known for worker, created, _ in processes):
            self._learn()
        workers = []
        for worker, created, executors in processes:
            worker_id, incarnation = self._known.get((worker, created), (None, None))
            workers.append(WorkerProcess(worker, worker_id, incarnation, executors))
        return sorted(workers, key=lambda worker: (worker.worker_id or "", worker.pid))

    def _learn(self) -> None:
        """Ask the node what its workers told it; one that is stopped or has just started knows nothing new."""
        try:
            snapshots: list[dict[str, Any]] = json.loads(self.get("/status")[1])
        except (OSError, ValueError):
            return
        for snapshot in snapshots:
            with suppress(psutil.Error, KeyError, TypeError):
                pid = int(snapshot["extras"]["pid"])
                key = (pid, psutil.Process(pid).create_time())
                self._known[key] = str(snapshot["workerId"]), str(snapshot["extras"]["incarnation"])


def is_running(pid: int) -> bool:
    """Whether a process runs, or would if it were not stopped; a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.Error:
        return []


def _says(process: psutil.Process, word: str) -> bool:
    """Whether a word stands in its command line."""
    try:
        return word in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _below(worker: psutil.Process) -> tuple[float, frozenset[int]]:
    """When a worker was started, and the pids of its executors: children of its forkserver, or of its own."""
    try:
        created = worker.create_time()
    except psutil.Error:
        created = 0.0
    children = _children(worker.pid)
    servers = [child for child in children if _says(child, "forkserver")]
    spawned = [child for child in children if _says(child, "spawn_main")]
    return created, frozenset(executor.pid for executor in (*spawned, *(each for one in servers for each in _children(one.pid))))
