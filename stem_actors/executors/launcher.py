"""Starts executors in one thread, the worker's main thread: their forkserver lives and dies with the thread that started it.

Owns the multiprocessing context and the list of every executor started. Which executor runs what is the pool's business.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence

from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.child import Codec, Shape
from stem_actors.executors.interrupts import deaf_to_interrupts
from stem_actors.executors.process import ExecutorProcess, launch

__all__ = ["ExecutorLauncher"]

_logger = logging.getLogger("stem.executors")


class ExecutorLauncher:
    """`prepare` and `launch_next` belong to the main thread; the rest may be called from any."""

    def __init__(
        self,
        method: str,
        source: ApplicationSource,
        codec: Codec,
        name: str,
        logging: tuple[str, str],
        preload: Sequence[str],
        wake: Callable[[], None],
        shape: Shape | None = None,
    ) -> None:
        self._context = multiprocessing.get_context(method)
        self._method = method
        self._source = source
        self._codec = codec
        self._name = name
        self._logging = logging
        self._preload = preload
        self._wake = wake
        self._shape = shape or Shape()
        self._tickets = itertools.count(1)
        self._requests: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._started: list[ExecutorProcess] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start the forkserver, if that is the method: its lifetime is bound to the calling thread."""
        if self._method == "forkserver":
            multiprocessing.forkserver.set_forkserver_preload(list(self._preload))
            multiprocessing.resource_tracker.ensure_running()  # which would do so below, and make us hear again
            with deaf_to_interrupts():  # until it has left our process group
                multiprocessing.forkserver.ensure_running()

    def launch(self, slot: int) -> int:
        """Ask for an executor; the main thread is woken to start it."""
        ticket = next(self._tickets)
        self._requests.put((slot, ticket))
        self._wake()
        return ticket

    def launch_next(self) -> tuple[int, int, ExecutorProcess | str] | None:
        """Start the executor that was asked for next: slot, ticket, and the process or what went wrong. None: nothing to do.

        Blocks until the process is forked.
        """
        try:
            slot, ticket = self._requests.get_nowait()
        except queue.Empty:
            return None
        parent = os.getpid() if self._method == "spawn" else None
        try:
            process = launch(self._context, self._source, self._codec, f"{self._name}/{slot}", parent, self._logging, self._shape)
        except (OSError, EOFError) as error:  # its forkserver has just died, or the host has no room for a process
            _logger.warning("cannot start an executor: %s: %s", type(error).__name__, error)
            return slot, ticket, f"{type(error).__name__}: {error}"
        with self._lock:
            self._started = [each for each in self._started if each.pidfd >= 0]
            self._started.append(process)
        return slot, ticket, process

    def reap_all(self, timeout: float) -> bool:
        """Kill every executor started so far and wait until they are dead; False when one is not in time."""
        with self._lock:
            running = [process for process in self._started if process.pidfd >= 0]
            self._started = []
        deadline = time.monotonic() + timeout
        for process in running:
            process.kill()
        all_dead = True
        for process in running:
            poll = select.poll()
            poll.register(process.pidfd, select.POLLIN)
            all_dead &= bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            process.close()
        return all_dead
