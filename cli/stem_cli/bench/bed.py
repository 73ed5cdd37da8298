"""Where measuring happens: a store of our own, the tasks on it, and a worker for the time of a block.

On SQLite the store is a new file beside the one that was named, so on the same disk; on a server it is a namespace of its own.
Nothing of the user's is touched, and nothing stays behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self
from urllib.parse import urlsplit

from stem_actors.clock import SystemClock
from stem_actors.config import Settings
from stem_actors.errors import OperatorError
from stem_actors.ports import Stores
from stem_cli.bench.records import DIRECTORY, Records, Run
from stem_cli.namespaces import forget_namespace
from stem_cli.store_facts import file_of

__all__ = ["EXECUTORS", "Bed"]

EXECUTORS = 2
_PATIENCE = 60.0  # seconds without any progress
_LEAVING = 20.0
_QUEUE = "bench"


class Bed:
    """One for a process: the tasks' module takes its settings from the environment when it is imported, here."""

    def __init__(self, settings: Settings) -> None:
        self.clock = SystemClock()
        self.technology = urlsplit(settings.broker_url).scheme
        self.is_memory = self.technology == "memory"
        self._directory = _new_directory(settings.broker_url)
        is_file = file_of(settings.broker_url) is not None
        self.settings = replace(
            Settings(),
            broker_url=f"sqlite:///{self._directory}/stem.db" if is_file else settings.broker_url,
            namespace=f"bench-{secrets.token_hex(6)}",
            sqlite_synchronous=settings.sqlite_synchronous,
            queues=(_QUEUE,),
            concurrency=EXECUTORS,
            name="bench",
            admin="off",
            log_level="warning",
            log_format="plain",
            result_ttl=600.0,
            drain_timeout=5.0,
        )
        self.records = Records(self._directory)
        self._log = self._directory / "node.log"
        self._node: subprocess.Popen[bytes] | None = None
        self._numbers = 0
        self._counted = 0

    def __enter__(self) -> Self:
        for variable in [name for name in os.environ if name.startswith("STEM_")]:
            del os.environ[variable]
        os.environ |= {**self.settings.as_environ(), DIRECTORY: str(self._directory)}
        from stem_cli.bench import tasks  # not before: see above

        self.tasks: ModuleType = tasks
        self.noop, self.hold, self.wait = tasks.noop, tasks.hold, tasks.wait
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.clear()
            forget_namespace(self.settings)
        except Exception:
            if kind is None:  # else the first error is the one to tell of
                raise
        finally:
            self.tasks.app.close()
            self.tasks.async_app.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def stores(self) -> Stores:
        stores: Stores = self.tasks.app.stores
        return stores

    def take_numbers(self, count: int) -> range:
        """Numbers for so many tasks, used by no others."""
        self._numbers += count
        return range(self._numbers - count, self._numbers)

    def clear(self) -> None:
        """Remove what waits in the queue."""
        self.stores.broker.purge(_QUEUE, dead_letters=True)

    # ------------------------------------------------------------ a worker

    @contextmanager
    def worker(self, application: str = "app", is_ready: bool = True) -> Iterator[int | None]:
        """A worker with two executors for the time of a block; gives the pid of its node, None when it has none.

        A memory broker's worker runs on threads of this process, and is always waited for. Earlier records are forgotten.
        """
        self.records.clear()
        self._counted = 0
        if self.is_memory:
            with getattr(self.tasks, application).worker(concurrency=EXECUTORS):
                yield None
            return
        with self._started_node(application) as pid:
            if is_ready:
                self.wait_until(self._is_ready, "a worker that is ready")
            yield pid

    @contextmanager
    def _started_node(self, application: str) -> Iterator[int]:
        words = ["-m", "stem_cli.node_command", "--app", f"stem_cli.bench.tasks:{application}"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        with self._log.open("ab") as log:
            node = subprocess.Popen(
                [sys.executable, *words],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )
        self._node = node
        try:
            yield node.pid
        finally:
            self._node = None
            node.terminate()
            try:
                node.wait(_LEAVING)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()

    def _is_ready(self) -> bool:
        beats = self.stores.heartbeats.list_heartbeats()
        return any((beat.get("extras") or {}).get("state") == "ready" for beat in beats)

    # ------------------------------------------------------------ waiting

    def await_runs(self, numbers: range, times: int = 1, pause: float = 0.02) -> list[Run]:
        """Wait until these tasks have run so many times in all, and give their runs; no others may run meanwhile."""
        wanted, before = times * len(numbers), self._counted
        self.wait_until(lambda: self.records.count() - before >= wanted, f"{wanted:,} runs of tasks", pause, wanted / 500)
        self._counted = before + wanted
        return self.records.of(numbers)

    def await_some(self, count: int) -> int:
        """Wait until so many of the tasks under way have run; gives how many it were by then."""
        before = self._counted
        self.wait_until(lambda: self.records.count() - before >= count, f"the first {count:,} of the tasks", 0.005)
        return self.records.count() - before

    def wait_until(self, condition: Callable[[], bool], what: str, pause: float = 0.02, longer: float = 0.0) -> None:
        """Look again and again until it is true.

        Raises:
            OperatorError: it was not within a minute (and `longer`), or the node has ended; with the end of the node's log.
        """
        deadline = self.clock.monotonic() + _PATIENCE + longer
        while not condition():
            if self._node is not None and self._node.poll() is not None:
                raise OperatorError(f"the benchmark's node ended with {self._node.returncode}: {self._last_words()}")
            if self.clock.monotonic() > deadline:
                raise OperatorError(f"waited in vain for {what}: {self._last_words()}")
            time.sleep(pause)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-20:]) or "its log is empty"


def _new_directory(url: str) -> Path:
    path = file_of(url)
    try:
        return Path(tempfile.mkdtemp(prefix="stem-bench-", dir=None if path is None else path.resolve().parent)).resolve()
    except OSError as error:
        raise OperatorError(
            f"no file can be made beside {path} to measure on ({error.strerror}); name a database elsewhere with --broker"
        ) from error
