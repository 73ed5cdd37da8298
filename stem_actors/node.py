"""stem-node: supervises worker processes on one host and serves /livez, /readyz, /metrics and /status.

The node imports no user code and touches no broker: it knows its workers by what they report each second. It adopts what dead
workers leave behind (it is a child subreaper, and works as PID 1), kills it, and reaps it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stem_actors.admin import AdminServer, Health, Pages
from stem_actors.config import Settings, masked_url
from stem_actors.errors import OperatorError
from stem_actors.executors.application import ApplicationSource
from stem_actors.exposition import NodeMetrics
from stem_actors.logs import set_up_logging
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.reload import watch_sources
from stem_actors.sd_notify import InitSystem
from stem_actors.supervision.child import Backoff, ChildSpec, Intensity, Restart
from stem_actors.supervision.events import ChildExited, ChildRestarted, Event, SupervisorFailed
from stem_actors.supervision.process import process
from stem_actors.supervision.reasons import ExitedWith, Normal
from stem_actors.supervision.tree import Tree, start_tree
from stem_actors.worker_orders import NO_STORE, WorkerOrders
from stem_actors.worker_process import WorkerProcess

__all__ = ["Node", "run"]

_logger = logging.getLogger("stem.node")

_OK, _USAGE, _FAILURE = 0, 64, 70
_SILENT = 5.0
_STILL = 10.0
"""Seconds after which a loop that turns each second, were it well, counts as stuck."""
_LAST_LOOKS = 2.0
_ORPHANS_COME_FOR = 10.0
"""Seconds after a worker's end in which what its tasks had started is looked for: it comes to us generation by generation."""
_PR_SET_CHILD_SUBREAPER = 36


def run(settings: Settings) -> int:
    """Run a node until it is told to leave; the exit code."""
    set_up_logging(settings.log_level, settings.log_format)
    try:
        return Node(settings).run()
    except OperatorError as error:
        _logger.error("%s", error)
        return _FAILURE


@dataclass(slots=True, eq=False)
class _WorkerView:
    """What the node last heard of one worker."""

    process: WorkerProcess | None = None
    heard_at: float = 0.0
    silent_ticks: int = 0
    reasons: list[str] = field(default_factory=lambda: ["starting"])
    snapshot: Mapping[str, Any] = field(default_factory=dict)


class Node:
    """One node. `run` is for the main thread: it installs signal handlers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers = {f"{settings.name}-{number}": _WorkerView() for number in range(1, settings.workers + 1)}
        self._metrics = NodeMetrics(settings.metrics_max_tasks)
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._fresh: list[WorkerProcess] = []
        self._started: list[WorkerProcess] = []
        self._signals: list[int] = []
        self._mode: ShutdownMode | None = None
        self._exit_code: int | None = None
        self._fatal = ""
        self._worker_ended_at: float | None = None
        self._done: set[str] = set()  # workers of a burst that found nothing more to do
        self._changed: list[str] = []  # sources, since the last look
        self._has_ended = threading.Event()
        self._tree: Tree | None = None
        self._turned_at = self._tree_moved_at = time.monotonic()
        self._tree_moves = 0
        self._init = InitSystem.from_environ(os.environ)

    def run(self) -> int:
        become_subreaper()
        admin = self._open_admin()
        settings = self._settings
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        facts = {"node": settings.name, "queues": list(settings.worker_queues), "concurrency": settings.concurrency}
        _logger.info(
            "%s starts %d worker(s) on %s", settings.name, settings.workers, masked_url(settings.broker_url), extra=facts
        )
        self._tree = start_tree(
            [self._spec(worker_id) for worker_id in self._workers], on_event=self._on_event, name="node", tick=1.0
        )
        if settings.reload:
            watch = partial(watch_sources, Path.cwd(), self._source_changed, self._has_ended)
            threading.Thread(target=watch, name="stem-reload", daemon=True).start()
        try:
            self._loop(self._tree)
        finally:
            self._has_ended.set()
            if admin is not None:
                admin.close()
            self._end_orphans()
            self._init.close()
        self._adopt_fresh()
        self._listen(timeout=0)
        code = _OK if self._exit_code is None else self._exit_code
        if self._fatal and code != _OK:
            print(f"stem-node: {self._fatal}", file=sys.stderr)
        return code

    # ------------------------------------------------------------ the main thread

    def _loop(self, tree: Tree) -> None:
        last_tick = time.monotonic()
        while tree.wait(0) is None:
            is_calm = self._mode is None and self._worker_ended_at is None
            self._listen(timeout=0.5 if is_calm else 0.05)  # neither the tree's end nor an orphan wakes us
            self._adopt_fresh()
            self._obey_signals(tree)
            self._look_for_orphans()
            self._look_at_ourselves(tree)
            if time.monotonic() - last_tick >= 1.0:
                last_tick = time.monotonic()
                self._tick(tree)
            if self._changed:
                self._reload()
            is_done = self._settings.burst and len(self._done) == len(self._workers)
            if (self._exit_code is not None or is_done) and self._mode is None:
                self._leave(tree, ShutdownMode.WARM)

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, WorkerProcess):
                self._hear(key.data)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake_fd)

    def _adopt_fresh(self) -> None:
        with self._lock:
            fresh, self._fresh = self._fresh, []
        for worker in fresh:
            view = self._workers[worker.worker_id]
            view.process, view.silent_ticks, view.reasons = worker, 0, ["starting"]
            view.heard_at = time.monotonic()
            self._selector.register(worker.sock, selectors.EVENT_READ, worker)
            if self._mode is not None:
                worker.shut_down(self._mode)

    def _hear(self, worker: WorkerProcess) -> None:
        view = self._workers[worker.worker_id]
        try:
            for frame in worker.frames():
                self._heard(view, worker, frame)
        except EOFError:
            self._selector.unregister(worker.sock)
            worker.sock.close()
            if view.process is worker:  # else its successor is here already
                view.process, view.reasons, view.snapshot = None, ["not running"], {}
                self._metrics.forget(worker.worker_id)

    def _heard(self, view: _WorkerView, worker: WorkerProcess, frame: list[Any]) -> None:
        match frame:
            case ["status", list(reasons), list(gauges), list(growth), dict(snapshot)]:
                self._metrics.add(growth)
                if view.process is worker:
                    view.heard_at, view.silent_ticks = time.monotonic(), 0
                    view.reasons, view.snapshot = reasons, snapshot
                    self._metrics.set_gauges(worker.worker_id, gauges)
            case ["fatal", str(text)]:
                self._fatal = text

    def _tick(self, tree: Tree) -> None:
        """Once a second by our own time: a node that was suspended with its workers does not blame them."""
        patience = max(10.0, 3 * self._settings.visibility_timeout)
        for worker_id, view in self._workers.items():
            if view.process is None:
                continue
            view.silent_ticks += 1
            if view.silent_ticks > patience:
                _logger.error("worker %s has reported nothing for %d s: it is replaced", worker_id, view.silent_ticks)
                view.silent_ticks = 0
                tree.directory.kill(worker_id)

    def _look_at_ourselves(self, tree: Tree) -> None:
        """Note what moves, for `/livez`, and tell the init system what it and `/readyz` say."""
        self._turned_at = now = time.monotonic()
        if tree.moves != self._tree_moves:
            self._tree_moves, self._tree_moved_at = tree.moves, now
        if not self._init.is_listening:
            return
        readiness = self._readyz()
        if readiness.is_good:
            self._init.ready()
        self._init.status(_summary(readiness))
        if self._livez().is_good:
            self._init.alive(now)

    # ------------------------------------------------------------ leaving

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)
        self._wake()

    def _obey_signals(self, tree: Tree) -> None:
        """TERM leaves warm, a second one hard; INT warm, soft, hard; QUIT hard."""
        steps = {
            signal.SIGTERM: [ShutdownMode.WARM, ShutdownMode.HARD],
            signal.SIGINT: [ShutdownMode.WARM, ShutdownMode.SOFT, ShutdownMode.HARD],
            signal.SIGQUIT: [ShutdownMode.HARD],
        }
        modes = [
            ladder[min(self._signals.count(number), len(ladder)) - 1]
            for number, ladder in steps.items()
            if number in self._signals
        ]
        if modes and (self._mode is None or max(modes) > self._mode):
            self._leave(tree, max(modes))

    def _leave(self, tree: Tree, mode: ShutdownMode) -> None:
        _logger.info("node %s leaves (%s)", self._settings.name, mode.name.lower())
        is_first, self._mode = self._mode is None, mode
        self._init.stopping(self._longest_leave)
        for view in self._workers.values():
            if view.process is not None:
                view.process.shut_down(mode)
        if is_first:
            tree.request_stop()

    # ------------------------------------------------------------ reloading

    def _source_changed(self, path: str) -> None:
        """In the watching thread."""
        self._changed.append(path)
        self._wake()

    def _reload(self) -> None:
        """Let every worker leave; its supervisor starts another, which imports the application anew."""
        changed, self._changed = self._changed, []
        if self._mode is not None:
            return
        _logger.info("%s has changed: the workers are restarted", changed[0], extra={"changed": changed})
        for view in self._workers.values():
            if view.process is not None:
                view.process.shut_down(ShutdownMode.WARM)

    # ------------------------------------------------------------ workers

    @property
    def _longest_leave(self) -> float:
        """Seconds within which a worker that was told to leave is gone, one way or the other."""
        return self._settings.drain_timeout + self._settings.soft_grace_period + 15.0

    def _spec(self, worker_id: str) -> ChildSpec:
        settings = self._settings
        is_restless = settings.enable_chaos or settings.reload
        return ChildSpec(
            worker_id,
            process(partial(self._start_worker, worker_id)),
            restart=Restart.TRANSIENT if settings.burst else Restart.PERMANENT,
            stop_deadline=self._longest_leave,
            backoff=Backoff(initial=0.1, maximum=5.0 if settings.reload else 10.0),
            intensity=Intensity(restarts=1000 if is_restless else 10, period=60.0),
        )

    def _start_worker(self, worker_id: str) -> WorkerProcess:
        """In a thread of its keeper: start, and let the main thread listen to it."""
        source = ApplicationSource(self._settings.app or self._settings.tasks[0], None, self._settings.tasks, os.getcwd())
        with self._lock:
            worker = WorkerProcess.start(WorkerOrders(self._settings, worker_id, source))
            self._fresh.append(worker)
            self._started.append(worker)
        self._wake()
        return worker

    def _on_event(self, event: Event) -> None:
        match event:
            case ChildExited(_, worker_id, _, reason):
                self._worker_ended_at = _boot_time()
                if isinstance(reason, Normal):
                    self._done.add(worker_id)
                may_be_mended = self._settings.reload  # by the next change of a source
                # It would end so each time.
                if isinstance(reason, ExitedWith) and reason.code in (_USAGE, NO_STORE) and not may_be_mended:
                    self._exit_code = _USAGE if reason.code == _USAGE else _FAILURE
                self._wake()
            case ChildRestarted(_, _, _, reason, _):
                self._metrics.count("stem_actor_restarts_total", "worker", reason.label)
            case SupervisorFailed():
                self._exit_code = self._exit_code or _FAILURE
                self._wake()

    def _look_for_orphans(self) -> None:
        ended_at = self._worker_ended_at
        if ended_at is not None and _boot_time() - ended_at > _ORPHANS_COME_FOR:
            self._worker_ended_at = None
        self._reap_orphans(started_before=ended_at)

    def _end_orphans(self) -> None:
        """End whatever is left to us, before init gets it."""
        until = time.monotonic() + _LAST_LOOKS
        while self._reap_orphans(started_before=_boot_time()) and time.monotonic() < until:
            time.sleep(0.01)

    def _reap_orphans(self, started_before: float | None) -> int:
        """Reap what was left to us, and end those who were there when a worker ended (`started_before`): its tasks left them.

        Returns how many there are.
        Under the lock no worker is being started, so a child that is no worker was left to us. A worker's exit is for its keeper.
        """
        with self._lock:
            self._started = [worker for worker in self._started if worker.popen.returncode is None]
            orphans = _children() - {worker.pid for worker in self._started}
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if started_before is not None and _started_at(pid) <= started_before:
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        return len(orphans)

    # ------------------------------------------------------------ admin

    def _open_admin(self) -> AdminServer | None:
        address = self._settings.admin_address
        if address is None:
            return None
        pages = Pages(self._livez, self._readyz, self._metrics.render, self._status)
        admin = AdminServer(*address, pages)
        admin.start()
        _logger.info("admin HTTP on http://%s", admin.address, extra={"admin": admin.address})
        return admin

    def _livez(self) -> Health:
        if self._tree is None or self._tree.wait(0) is not None:
            return Health({"node": ["its supervision tree has ended"]})
        now = time.monotonic()
        ages = {"main thread": now - self._turned_at, "supervisor": now - self._tree_moved_at}
        return Health({"node": [f"its {part} has not moved for {age:.0f} s" for part, age in ages.items() if age > _STILL]})

    def _readyz(self) -> Health:
        now = time.monotonic()
        reasons: dict[str, list[str]] = {}
        for worker_id, view in self._workers.items():
            silent = now - view.heard_at
            if view.process is not None and silent > _SILENT:
                reasons[worker_id] = [f"it has reported nothing for {silent:.0f} s"]
            else:
                reasons[worker_id] = list(view.reasons)
        if self._mode is not None:
            reasons["node"] = ["leaving"]
        return Health(reasons)

    def _status(self) -> Any:
        return [view.snapshot for view in self._workers.values() if view.snapshot]

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)


def _summary(health: Health) -> str:
    """In one line: ready, or the first reason why not."""
    return next((f"{part}: {reasons[0]}" for part, reasons in health.reasons.items() if reasons), "ready")


def become_subreaper() -> None:
    """Have orphans of our descendants become our children (Linux), so that they can be ended and reaped."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _boot_time() -> float:
    """Now, on the clock that the kernel counts the starts of processes by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _started_at(pid: int) -> float:
    """When a process was started, by that clock; infinity when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _children() -> set[int]:
    """Pids of our children, of all threads."""
    pids: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids |= {int(pid) for pid in listing.read_text().split()}
    return pids
