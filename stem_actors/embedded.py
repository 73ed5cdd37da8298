"""A worker inside a program, for as long as a `with` block lasts: monoliths, scripts, tests."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from stem_actors.actors.heartbeat import Status
from stem_actors.config import Settings
from stem_actors.errors import ConfigError
from stem_actors.executors.application import Application, ApplicationSource, describe
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.model.task import TaskRegistry
from stem_actors.ports import Stores
from stem_actors.worker import Worker
from stem_actors.worker_orders import WorkerOrders
from stem_actors.worker_process import WorkerProcess, source_of

__all__ = ["Embeddable", "embedded"]

INLINE = "inline"
POOLS = ("forkserver", "spawn", INLINE)
_READY_WITHIN = 60.0
_STOP_WITHIN = 10.0


class Embeddable(Protocol):
    """What an embedded worker needs of its application."""

    @property
    def settings(self) -> Settings: ...
    @property
    def stores(self) -> Stores: ...
    @property
    def registry(self) -> TaskRegistry: ...


@contextlib.contextmanager
def embedded(app: Embeddable, concurrency: int | None, queues: Sequence[str] | None, pool: str | None) -> Iterator[None]:
    """A worker for as long as the block lasts; it has started when the block begins, and has drained when it ends.

    It runs in a process of its own, so that leases are renewed whatever the program does. With a memory broker it runs on
    threads of this program, for there is no other way to its tasks. With `pool="inline"` the tasks do, too; what that costs, see
    `executors/inline.py`.
    """
    if pool not in (None, *POOLS):
        raise ConfigError(f"pool is {pool!r}, which is not one of {', '.join(POOLS)}")
    settings = replace(
        app.settings,
        concurrency=concurrency or app.settings.concurrency,
        queues=tuple(queues) if queues is not None else app.settings.queues,
        pool=pool or app.settings.pool,
        burst=False,
    )
    inline = describe(app.registry, app) if settings.pool == INLINE else None
    source = source_of(app) if inline is None else ApplicationSource(INLINE)
    orders = WorkerOrders(settings, f"{settings.name}-embedded-{os.getpid()}", source)
    if inline is not None or settings.broker_url.startswith("memory"):
        with _in_threads(orders, app.stores, inline):
            yield
        return
    process = WorkerProcess.start(orders)
    try:
        process.wait_ready(_READY_WITHIN)
        yield
    finally:
        process.leave(settings.drain_timeout + settings.soft_grace_period + _STOP_WITHIN)


@contextlib.contextmanager
def _in_threads(orders: WorkerOrders, stores: Stores, inline: Application | None) -> Iterator[None]:
    is_ready = threading.Event()
    problems: list[str] = []

    def publish(status: Status) -> None:
        if not status.reasons:
            is_ready.set()

    def fatal(text: str) -> None:
        problems.append(text)
        is_ready.set()

    worker = Worker(orders, stores, publish, fatal, inline=inline)
    thread = threading.Thread(target=worker.run, name="stem-worker", daemon=True)
    thread.start()
    try:
        is_ready.wait(_READY_WITHIN)
        if problems or not is_ready.is_set():
            raise ConfigError(problems[0] if problems else "the embedded worker is not ready in time")
        yield
    finally:
        worker.shut_down(ShutdownMode.WARM)
        thread.join(orders.settings.drain_timeout + orders.settings.soft_grace_period + _STOP_WITHIN)
