"""A worker: its supervision tree in one readable function, and the main thread that runs it.

Composition only. The main thread starts executors (their lifetime is bound to it), hears signals and the node, and decides when
the process ends; everything else is an actor.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import queue
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack

from stem_actors.actors import messages as m
from stem_actors.actors.autoscaler import Autoscaler
from stem_actors.actors.burst_watch import BurstWatch
from stem_actors.actors.consumer import Consumer
from stem_actors.actors.executor_pool import ExecutorPool, PoolSettings
from stem_actors.actors.heartbeat import Heartbeat, Identity, Status
from stem_actors.actors.housekeeper import Housekeeper
from stem_actors.actors.lease_renewer import LeaseRenewer
from stem_actors.actors.paused_queues import PausedQueues
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.revoke_listener import MOST_EXECUTORS, RevokeListener
from stem_actors.actors.server_clock import ServerClock
from stem_actors.actors.settler import Settler
from stem_actors.actors.told import Told
from stem_actors.actors.vitals import Vitals
from stem_actors.adapters import is_same_place, open_configured
from stem_actors.clock import Clock, SystemClock
from stem_actors.codecs.msgpack import decode_delivery, decode_envelope, encode_payload
from stem_actors.config import Settings, masked_url
from stem_actors.errors import BrokerUnavailable, ConfigError, StemError, StorageFull
from stem_actors.executors.application import Application
from stem_actors.executors.child import Codec, Shape
from stem_actors.executors.launcher import ExecutorLauncher
from stem_actors.executors.process import ExecutorProcess
from stem_actors.metrics import Tally
from stem_actors.model.autoscale import Autoscale
from stem_actors.model.ids import new_incarnation
from stem_actors.model.retry import Limits
from stem_actors.ports import Stores
from stem_actors.supervision.child import ChildSpec, Strategy, actor
from stem_actors.supervision.events import ChildRestarted, ChildStarted, Event, SupervisorFailed, SupervisorStatistics
from stem_actors.supervision.supervisor import supervisor
from stem_actors.supervision.tree import Tree, start_tree
from stem_actors.worker_orders import NO_STORE, WorkerOrders

if TYPE_CHECKING:
    from stem_actors.executors.inline import InlineLauncher

__all__ = ["Worker", "main"]

_logger = logging.getLogger("stem.worker")

_OK, _USAGE, _FAILURE = 0, 64, 70
_PRELOAD = ("stem_actors.executors.preload", "stem_actors.codecs.msgpack", "stem_actors.app")
_STOP_DEADLINE = 10.0
_SWITCH_INTERVAL = 0.0005
"""Seconds a thread keeps the interpreter while another wants it: a tenth of Python's default, since an actor that comes back from
a read, a write or a commit should not wait for the end of another's computing. Worth a tenth of the throughput."""

_NEW_OBJECTS = 20_000
"""New objects between two looks of the garbage collector: a task's values make no cycles, and at Python's default of 700 it looks
through all that is in flight after every few tasks. Worth a fifteenth of the processor time of a task."""


class Worker:
    """One worker. `run` belongs to the thread that is to start executors; `shut_down` may be called from any.

    `publish` gets a status each second, in an actor's thread, unless it is None; `fatal` the reason, before a run ends with
    another code than 0.
    `incarnation`: who this worker is among all there ever were (default: a new one).
    `inline`: run the tasks of this application, in threads of this process, instead of starting executors.
    """

    pool_tick = 0.05
    """Seconds between two looks of the pool at what runs."""

    def __init__(
        self,
        orders: WorkerOrders,
        stores: Stores,
        publish: Callable[[Status], None] | None,
        fatal: Callable[[str], None] = lambda text: None,
        clock: Clock | None = None,
        inline: Application | None = None,
        incarnation: str | None = None,
    ) -> None:
        self._orders = orders
        self._stores = stores
        self._publish = publish
        self._fatal = fatal
        self._clock = clock or SystemClock()
        self._holder = incarnation or new_incarnation(orders.worker_id)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._modes: queue.SimpleQueue[m.ShutdownMode] = queue.SimpleQueue()
        self._mode: m.ShutdownMode | None = None
        self._exit_code: int | None = None
        self._is_ready = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_fd, selectors.EVENT_READ, self._drain_wake)
        settings = orders.settings
        codec = Codec(partial(decode_envelope, max_bytes=settings.max_payload_bytes), encode_payload)
        self._is_inline = inline is not None
        self._launcher: ExecutorLauncher | InlineLauncher
        if inline is not None:
            from stem_actors.executors.inline import InlineLauncher  # brings asyncio, which no other worker needs

            self._launcher = InlineLauncher(inline, codec, orders.worker_id, settings.threads, self._wake)
        else:
            self._launcher = ExecutorLauncher(
                settings.pool,
                orders.source,
                codec,
                orders.worker_id,
                (settings.log_level, settings.log_format),
                _PRELOAD,
                self._wake,
                Shape(settings.threads, settings.max_address_space_per_executor),
            )
        self._tree: Tree | None = None
        self._tallies: dict[str, Tally] = {}

    # ------------------------------------------------------------ for other threads

    def shut_down(self, mode: m.ShutdownMode = m.ShutdownMode.WARM) -> None:
        """Leave, in this mode."""
        self._modes.put(mode)
        self._wake()

    def end(self, code: int, reason: str = "") -> None:
        """Stop everything and leave with `code`; the first one counts."""
        if self._exit_code is None:
            self._exit_code = code
            if reason:
                _logger.error("%s ends: %s", self._orders.worker_id, reason, extra={"worker": self._orders.worker_id})
                self._fatal(reason)
        self._wake()

    def kill_actor(self, child_id: str) -> bool:
        """Make an actor crash, as chaos asks for."""
        return self._tree is not None and self._tree.directory.kill(child_id)

    # ------------------------------------------------------------ the pool's launcher

    def launch(self, slot: int) -> int:
        return self._launcher.launch(slot)

    def reap_all(self, timeout: float) -> bool:
        return self._launcher.reap_all(timeout)

    def hung(self) -> None:
        _logger.critical("%s ends: its main thread hangs while it starts an executor", self._orders.worker_id)
        os._exit(_FAILURE)

    def executor_ready(self, broker: str | None) -> None:
        self._is_ready = True
        ours = self._orders.settings.broker_url
        if broker is not None and not is_same_place(broker, ours):
            self.end(
                _USAGE,
                f"the application {self._orders.source.target!r} enqueues on {masked_url(broker)}, but this worker works on "
                f"{masked_url(ours)}. Start it with --broker {masked_url(broker)}, or let the application read STEM_BROKER_URL.",
            )

    def unusable(self, code: int, text: str) -> None:
        self.end(code, text)

    def drained(self) -> None:
        self.end(_OK)

    # ------------------------------------------------------------ the main thread

    def watch(self, fileobj: Any, callback: Callable[[], None]) -> None:
        """Have `callback` called in the main thread when `fileobj` is readable; before `run`."""
        self._selector.register(fileobj, selectors.EVENT_READ, callback)

    def unwatch(self, fileobj: Any) -> None:
        self._selector.unregister(fileobj)

    def run(self) -> int:
        """Run until told to leave; the exit code."""
        self._launcher.prepare()
        self._tree = start_tree(self._children(), on_event=self._on_event, clock=self._clock, name="worker")
        leave_by: float | None = None
        try:
            while self._exit_code is None:
                self._launch_executors(self._tree)
                mode = self._next_mode()
                if mode is not None:
                    leave_by = self._leave(self._tree, mode, leave_by)
                    continue
                for key, _ in self._selector.select(timeout=1.0):
                    key.data()
                if self._tree.wait(0) is not None:
                    self.end(_FAILURE, f"its supervision tree ended: {self._tree.wait(0)}")
                if leave_by is not None and self._clock.monotonic() > leave_by:
                    _logger.warning("%s leaves with deliveries unsettled; their leases will lapse", self._orders.worker_id)
                    self.end(_OK)
        finally:
            self._stop()
        return self._exit_code

    def _launch_executors(self, tree: Tree) -> None:
        while (launched := self._launcher.launch_next()) is not None:
            slot, ticket, result = launched
            if isinstance(result, ExecutorProcess):
                if not tree.tell(m.EXECUTOR_POOL, m.ExecutorUp(slot, ticket, result)):
                    result.kill()
            else:
                tree.tell(m.EXECUTOR_POOL, m.ExecutorFailed(slot, ticket, result))

    def _next_mode(self) -> m.ShutdownMode | None:
        with contextlib.suppress(queue.Empty):
            return self._modes.get_nowait()
        return None

    def _leave(self, tree: Tree, mode: m.ShutdownMode, leave_by: float | None) -> float | None:
        if self._mode is not None and mode <= self._mode:
            return leave_by
        self._mode = mode
        settings = self._orders.settings
        _logger.info("%s leaves (%s)", self._orders.worker_id, mode.name.lower(), extra={"worker": self._orders.worker_id})
        self._tell_to_leave(tree, mode)
        grace = settings.soft_grace_period + 2.0
        allowed = {m.ShutdownMode.WARM: settings.drain_timeout + grace, m.ShutdownMode.SOFT: grace, m.ShutdownMode.HARD: 2.0}
        until = self._clock.monotonic() + allowed[mode]
        return until if leave_by is None else min(until, leave_by)

    def _tell_to_leave(self, tree: Tree, mode: m.ShutdownMode) -> None:
        tree.tell(m.CONSUMER, m.StopFetching())
        tree.tell(m.EXECUTOR_POOL, m.Shutdown(mode))

    def _stop(self) -> None:
        """Stop the tree; what it does not get done by the deadline ends with the process."""
        if self._tree is not None:
            self._tree.stop(timeout=_STOP_DEADLINE)
        self._launcher.reap_all(timeout=2.0)
        self._selector.close()
        with contextlib.suppress(OSError):
            os.close(self._wake_fd)
        self._wake_fd = -1

    def _wake(self) -> None:
        if self._wake_fd >= 0:
            with contextlib.suppress(OSError):
                os.eventfd_write(self._wake_fd, 1)

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)

    def _on_event(self, event: Event) -> None:
        match event:
            case ChildRestarted(_, child_id, _, reason, _):
                self._tally("supervisor").count("stem_actor_restarts_total", child_id, reason.label)
            case ChildStarted(_, m.CONSUMER | m.EXECUTOR_POOL, _) if self._mode is not None and self._tree is not None:
                self._tell_to_leave(self._tree, self._mode)  # its predecessor was told, and died
            case SupervisorFailed():
                self._wake()

    def _tally(self, actor: str) -> Tally:
        """An actor's tally, the same through all its lives."""
        return self._tallies.setdefault(actor, Tally())

    # ------------------------------------------------------------ the tree

    def _children(self) -> Sequence[ChildSpec]:
        """The worker's supervision tree. What shares a fate restarts together: pool, then consumer; the others stand alone."""
        orders, settings, stores, clock = self._orders, self._orders.settings, self._stores, self._clock
        worker, holder, queues = orders.worker_id, self._holder, settings.worker_queues
        rules = _autoscale(settings)
        limits = Limits(settings.max_deliveries, settings.unregistered_max_deliveries)
        vitals = Vitals(concurrency=settings.concurrency if rules is None else rules.most)
        server_clock = ServerClock(clock, stores.broker)
        tally = self._tally
        for name in (m.SETTLER, m.LEASE_RENEWER, m.EXECUTOR_POOL, m.CONSUMER, m.HOUSEKEEPER, m.REVOKE_LISTENER, "supervisor"):
            tally(name)
        decode = partial(decode_delivery, max_bytes=settings.max_payload_bytes)
        pool_settings = PoolSettings(
            worker,
            settings.namespace,
            settings.async_slots,
            settings.prefetch_multiplier,
            settings.visibility_timeout,
            settings.max_payload_bytes,
            settings.drain_timeout,
            settings.soft_grace_period,
            settings.force_shutdown_after,
            announces_redeliveries=stores.results is not None and not stores.settles_results,
            threads=settings.threads,
            max_tasks_per_executor=settings.max_tasks_per_executor,
            max_memory_per_executor=settings.max_memory_per_executor,
            enforces_hard_limits=not self._is_inline,
            tick=self.pool_tick,
        )
        identity = Identity(
            worker,
            holder,
            settings.channel_namespace,
            queues,
            settings.visibility_timeout,
            settings.heartbeat_interval,
            settings.name,
            None if rules is None else rules.most,
        )
        told = Told(list(self._tallies.values()), queues)

        def reconnect(name: str) -> Reconnect:
            return Reconnect(name, worker, settings.visibility_timeout, vitals, tally(name))

        def settler(context: Any) -> Settler:
            separate = None if stores.settles_results else stores.results
            return Settler(
                context,
                stores.broker,
                separate,
                stores.results,
                stores.rate_limits,
                holder,
                worker,
                limits,
                reconnect(m.SETTLER),
                vitals,
                tally(m.SETTLER),
            )

        def lease_renewer(context: Any) -> LeaseRenewer:
            reached = reconnect(m.LEASE_RENEWER)
            return LeaseRenewer(context, stores.broker, stores.rate_limits, worker, reached, vitals, tally(m.LEASE_RENEWER))

        def executor_pool(context: Any) -> ExecutorPool:
            return ExecutorPool(context, pool_settings, self, vitals, tally(m.EXECUTOR_POOL), clock.now, server_clock.now)

        def consumer(context: Any) -> Consumer:
            return Consumer(context, stores.broker, queues, holder, decode, reconnect(m.CONSUMER), vitals, server_clock)

        def housekeeper(context: Any) -> Housekeeper:
            return Housekeeper(
                context,
                stores.broker,
                stores.results,
                stores.revocations,
                reconnect(m.HOUSEKEEPER),
                vitals,
                tally(m.HOUSEKEEPER),
            )

        def heartbeat(context: Any) -> Heartbeat:
            return Heartbeat(
                context,
                identity,
                stores.broker,
                stores.heartbeats,
                told,
                vitals,
                self._publish,
                lambda reason: self.end(_FAILURE, reason),
                self._statistics,
                server_clock,
            )

        def revoke_listener(context: Any) -> RevokeListener:
            return RevokeListener(
                context,
                stores.revocations,
                PausedQueues(stores.pauses, queues, worker, vitals),
                stores.control,
                worker,
                holder,
                settings.channel_namespace,
                server_clock.now,
                reconnect(m.REVOKE_LISTENER),
                self.shut_down,
                settings.enable_chaos,
                max(MOST_EXECUTORS, settings.concurrency) if rules is None else None,
                vitals,
            )

        def burst_watch(context: Any) -> BurstWatch:
            return BurstWatch(context, stores.broker, queues, holder, lambda: self._is_ready, self.shut_down)

        def autoscaler(context: Any) -> Autoscaler:
            return Autoscaler(context, rules or Autoscale(), stores.broker, queues, worker, vitals)

        work = [
            ChildSpec(m.EXECUTOR_POOL, actor(executor_pool), handler_deadline=20.0),
            ChildSpec(m.CONSUMER, actor(consumer), handler_deadline=20.0),
        ]
        optional = [ChildSpec(m.BURST_WATCH, actor(burst_watch), handler_deadline=60.0)] if settings.burst else []
        if rules is not None:
            optional.append(ChildSpec(m.AUTOSCALER, actor(autoscaler), handler_deadline=30.0))
        return [
            ChildSpec(m.SETTLER, actor(settler), handler_deadline=30.0),
            ChildSpec(m.LEASE_RENEWER, actor(lease_renewer), handler_deadline=20.0),
            ChildSpec("work", supervisor(work, Strategy.REST_FOR_ONE)),
            ChildSpec(m.HOUSEKEEPER, actor(housekeeper), handler_deadline=60.0),
            ChildSpec(m.HEARTBEAT, actor(heartbeat), handler_deadline=30.0),
            ChildSpec(m.REVOKE_LISTENER, actor(revoke_listener), handler_deadline=20.0),
            *optional,
        ]

    def _statistics(self) -> SupervisorStatistics | None:
        return None if self._tree is None else self._tree.statistics()


def _autoscale(settings: Settings) -> Autoscale | None:
    """How this worker scales itself; None: it does not."""
    if settings.autoscale is None:
        return None
    rules = Autoscale(
        *settings.autoscale,
        settings.autoscale_up_step,
        settings.autoscale_down_step,
        settings.autoscale_backlog_per_executor,
        settings.autoscale_idle_period,
        settings.autoscale_tick,
        settings.autoscale_up_cooldown,
        settings.autoscale_down_cooldown,
    ).within(settings.concurrency)
    if rules.most < settings.autoscale[1]:
        _logger.warning("autoscaling goes up to %d executors, not %d: that is the concurrency", rules.most, settings.autoscale[1])
    return rules


# ---------------------------------------------------------------- as a process


def main() -> None:
    """The entry of a worker process: orders come as the first frame of the socket whose descriptor is the first argument."""
    sys.exit(_run_process(socket.socket(fileno=int(sys.argv[1]))))


def _run_process(sock: socket.socket) -> int:
    from stem_actors.logs import set_up_logging

    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    unpacker = msgpack.Unpacker(strict_map_key=False)
    wire = _first_frame(sock, unpacker)
    if wire is None:
        return _OK
    orders = WorkerOrders.from_wire(wire)
    set_up_logging(orders.settings.log_level, orders.settings.log_format)
    sending = threading.Lock()

    def send(*frame: Any) -> None:
        with sending, contextlib.suppress(OSError):  # a node that is gone is noticed by reading
            sock.sendall(msgpack.packb(frame, datetime=True))

    incarnation = new_incarnation(orders.worker_id)
    try:
        stores = _probed(orders.settings, open_configured(orders.settings, SystemClock()), incarnation)
        with contextlib.suppress(BrokerUnavailable, StorageFull):  # states, not failures: the worker waits for their end
            stores.control.cursor(())
            if stores.results is not None:
                stores.results.get("")
            stores.revocations.list_since(limit=0)
    except StemError as error:
        send("fatal", str(error))
        return _USAGE if isinstance(error, ConfigError) else NO_STORE
    worker = Worker(
        orders,
        stores,
        publish=lambda status: send("status", list(status.reasons), status.gauges, status.growth, status.snapshot),
        fatal=lambda text: send("fatal", text),
        incarnation=incarnation,
    )
    worker.watch(sock, lambda: _hear_node(worker, sock, unpacker))
    _obey_node(worker, unpacker)  # what came with the first frame
    _obey_signals(worker)
    try:
        return worker.run()
    finally:
        stores.close()
        sys.stderr.flush()


def _probed(settings: Settings, stores: Stores, incarnation: str) -> Stores:
    """What the chaos probe makes of the stores, where there is one and chaos is enabled."""
    if settings.chaos_probe is None or not settings.enable_chaos:
        return stores
    module, _, function = settings.chaos_probe.partition(":")
    try:
        probe: Callable[[Stores, str], Stores] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"STEM_CHAOS_PROBE is {settings.chaos_probe!r}, and that cannot be imported: {error}") from error
    return probe(stores, incarnation)


def _first_frame(sock: socket.socket, unpacker: msgpack.Unpacker) -> Any:
    while True:
        data = sock.recv(65_536)
        if not data:
            return None
        unpacker.feed(data)
        for frame in unpacker:
            return frame


def _hear_node(worker: Worker, sock: socket.socket, unpacker: msgpack.Unpacker) -> None:
    """Frames of whoever started us; when that is gone, so are we, politely."""
    try:
        data = sock.recv(65_536)
    except OSError:
        data = b""
    if not data:
        worker.unwatch(sock)
        worker.shut_down(m.ShutdownMode.WARM)
        return
    unpacker.feed(data)
    _obey_node(worker, unpacker)


def _obey_node(worker: Worker, unpacker: msgpack.Unpacker) -> None:
    for frame in unpacker:
        match frame:
            case ["shutdown", int(mode)]:
                worker.shut_down(m.ShutdownMode(mode))
            case ["kill_actor", str(child_id)]:
                worker.kill_actor(child_id)


def _obey_signals(worker: Worker) -> None:
    """TERM leaves warm, a second one hard; INT warm, soft, hard; QUIT hard. Also what a whole process group is sent."""
    counts = {signal.SIGTERM: 0, signal.SIGINT: 0}

    def on_signal(number: int, _frame: object) -> None:
        number = signal.Signals(number)
        if number is signal.SIGQUIT:
            worker.shut_down(m.ShutdownMode.HARD)
            return
        counts[number] += 1
        steps = [m.ShutdownMode.WARM, m.ShutdownMode.HARD]
        if number is signal.SIGINT:
            steps.insert(1, m.ShutdownMode.SOFT)
        worker.shut_down(steps[min(counts[number], len(steps)) - 1])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, on_signal)
