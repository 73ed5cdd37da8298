"""The heartbeat: judges whether work flows, publishes state and counters, and cures or ends a worker that makes no progress."""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.pool_report import GetReport, PoolReport
from stem_actors.actors.readiness import NO_PROGRESS, Judgement, judge
from stem_actors.actors.server_clock import ServerClock
from stem_actors.actors.told import Told
from stem_actors.actors.tree_report import mailbox_depths, tree_document
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import StemError
from stem_actors.metrics import Sample
from stem_actors.ports import Broker, HeartbeatStore, QueueDepth
from stem_actors.supervision.base import ActorContext, StemActor
from stem_actors.supervision.events import SupervisorStatistics

__all__ = ["Heartbeat", "Identity", "Status"]

_logger = logging.getLogger("stem.heartbeat")
_EVERY = 1.0
_EVERY_UNTIL_READY = 0.1
_ASK_THE_BROKER = frozenset((m.CONSUMER, m.LEASE_RENEWER))
"""Who asks the broker's own server and no other: while one of them does not reach it, neither would the heartbeat."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who beats. `worker_id` is the label shown everywhere, `incarnation` this one start of it, `node` whose worker it is.

    `most_executors`: how far it scales itself; None: it does not.
    """

    worker_id: str
    incarnation: str
    namespace: str
    queues: Sequence[str]
    visibility_timeout: float
    interval: float
    node: str
    most_executors: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker tells its node each second: reasons why it is not ready, gauges and what its counters grew by."""

    reasons: Sequence[str]
    gauges: Sequence[Sample]
    growth: Sequence[Sample]
    snapshot: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Beat:
    """A second has passed."""


Message: TypeAlias = PoolReport | _Beat


class Heartbeat(StemActor):
    """Beats each second towards the node (`publish`; None: there is none), each `interval` towards the store.

    Owns:     what it last sent.
    Receives: PoolReport.      Tells: executor pool (GetReport).
    Restart:  what it told outlives it, so the node is sent what the counters grew by since.
    """

    def __init__(
        self,
        context: ActorContext,
        identity: Identity,
        broker: Broker,
        store: HeartbeatStore,
        told: Told,
        vitals: Vitals,
        publish: Callable[[Status], None] | None,
        give_up: Callable[[str], None],
        statistics: Callable[[], SupervisorStatistics | None],
        server_clock: ServerClock,
    ) -> None:
        super().__init__(context)
        self._identity = identity
        self._broker = broker
        self._store = store
        self._told = told
        self._vitals = vitals
        self._publish = publish
        self._give_up = give_up
        self._statistics = statistics
        self._server_clock = server_clock
        self._report: PoolReport | None = None
        self._reported_at = 0.0
        self._started_at = self._counting_from = self.clock.monotonic()
        self._due_at = self._started_at
        self._stored_at = float("-inf")
        self._depths: Sequence[QueueDepth] = ()
        self._asked_at = float("-inf")
        self._asking_took = 0.0
        self._was_ready: bool | None = None
        self._cured_at = float("-inf")

    def on_start(self) -> None:
        self.after(0.05, _Beat())

    def on_stop(self) -> None:
        """Leave the counts of the last second with the node, and no trace among the living."""
        judgement = Judgement(("left",))
        status = self._status(judgement)
        if self._publish is not None:
            self._publish(status)
        if self._identity.interval:
            self._put(status.snapshot, self.clock.monotonic(), ttl=0.0)

    def on_receive(self, message: Message) -> None:
        match message:
            case PoolReport():
                self._report, self._reported_at = message, self.clock.monotonic()
            case _Beat():
                self._beat()
            case _:
                assert_never(message)

    def _beat(self) -> None:
        now = self.clock.monotonic()
        self._allow_for_standstill(now)
        self.tell(m.EXECUTOR_POOL, GetReport())
        judgement = self._judge(now)
        has_turned = (not judgement.reasons) != self._was_ready
        self._act(judgement, now)
        is_due = bool(self._identity.interval) and (has_turned or now - self._stored_at >= self._identity.interval)
        if self._publish is not None or is_due:
            status = self._status(judgement)
            self._vitals.snapshot = status.snapshot
            if self._publish is not None:
                self._publish(status)
        if _ASK_THE_BROKER.isdisjoint(self._vitals.broker_errors.copy()):  # else asking would hold up what the node must hear
            self._ask_broker(now)
            if is_due:
                self._put(self._vitals.snapshot, now)
        pause = _EVERY if self._was_ready or self._publish is None else _EVERY_UNTIL_READY
        self._due_at = self.clock.monotonic() + pause
        self.after(pause, _Beat())

    # ------------------------------------------------------------ readiness

    def _allow_for_standstill(self, now: float) -> None:
        """A beat this late means that the whole process stood still, by SIGSTOP or with its host: nobody is to blame for that."""
        if now - self._due_at > NO_PROGRESS:
            _logger.warning("%s stood still for %.0f s", self._identity.worker_id, now - self._due_at)
            self._counting_from = now

    def _judge(self, now: float) -> Judgement:
        queues = set(self._identity.queues) - self._vitals.paused
        work_waits = any(depth.pending for depth in self._depths if depth.queue in queues)
        age = now - max(self._reported_at, self._counting_from)
        timeout = self._identity.visibility_timeout
        return judge(self._report, age, self._vitals, now, self._counting_from, timeout, work_waits)

    def _act(self, judgement: Judgement, now: float) -> None:
        is_ready = not judgement.reasons
        if is_ready != self._was_ready:
            is_expected = is_ready or self._was_ready is None or (self._report is not None and self._report.is_draining)
            level = logging.INFO if is_expected else logging.WARNING
            text = "ready" if is_ready else "not ready: " + "; ".join(judgement.reasons)
            _logger.log(level, "%s is %s", self._identity.worker_id, text, extra={"worker": self._identity.worker_id})
            self._was_ready = is_ready
        if judgement.is_hopeless:
            self._give_up("; ".join(judgement.reasons))
        elif judgement.cure is not None and now - self._cured_at > 10.0:
            self._cured_at = now
            _logger.error("restarting the %s: %s", judgement.cure, "; ".join(judgement.reasons))
            self.context.directory.kill(judgement.cure)

    # ------------------------------------------------------------ what is sent

    def _ask_broker(self, now: float) -> None:
        """As often as the store hears of us: what waits there, and what its clock shows."""
        if now - self._asked_at < max(2.0, self._identity.interval or 10.0, min(60.0, 20 * self._asking_took)):
            return  # counting what waits may take a broker long
        self._asked_at = now
        try:
            found = self._broker.depths()
            self._asking_took = self.clock.monotonic() - now
            self._server_clock.compare()
        except StemError as error:
            _logger.info("cannot read the queues' depths: %s", error)
            return
        silent = set(self._identity.queues) - {depth.queue for depth in found}
        self._depths = [*found, *(QueueDepth(queue, 0, 0, 0, 0, None) for queue in sorted(silent))]

    def _status(self, judgement: Judgement) -> Status:
        tree, growth = self._statistics(), self._told.growth()
        return Status(judgement.reasons, self._gauges(judgement, tree), growth, self._snapshot(judgement, tree))

    def _gauges(self, judgement: Judgement, tree: SupervisorStatistics | None) -> list[Sample]:
        worker, namespace = self._identity.worker_id, self._identity.namespace
        gauges: list[Sample] = [
            ["stem_worker_ready", [worker], 0 if judgement.reasons else 1],
            ["stem_worker_concurrency", [worker, namespace], self._vitals.concurrency],
        ]
        if self._report is not None:
            gauges.append(["stem_worker_inflight", [worker, namespace], self._report.inflight])
            gauges += [["stem_executors", [worker, state], count] for state, count in self._report.states.items()]
        gauges += [["stem_mailbox_depth", [worker, actor], depth] for actor, depth in mailbox_depths(tree)]
        for depth in self._depths:
            gauges.append(["stem_queue_depth", [depth.queue], depth.pending])
            gauges.append(["stem_queue_inflight", [depth.queue], depth.inflight])
            gauges.append(["stem_queue_delayed", [depth.queue], depth.delayed])
            gauges.append(["stem_queue_oldest_seconds", [depth.queue], depth.oldest_age or 0.0])
            gauges.append(["stem_dead_letter_depth", [depth.queue], depth.dead])
        if self._stored_at > float("-inf"):
            age = self.clock.monotonic() - self._stored_at
            gauges.append(["stem_heartbeat_timestamp_seconds", [worker], self._server_clock.now() - age])
        return gauges

    def _snapshot(self, judgement: Judgement, tree: SupervisorStatistics | None) -> dict[str, Any]:
        """The heartbeat in its public form, names as in `stem worker status --json`."""
        identity, report, now = self._identity, self._report, self.clock.monotonic()
        server_now = self._server_clock.now()
        renewed = self._vitals.renewed_at
        running = report.running if report is not None else 0
        return {
            "workerId": identity.worker_id,
            "namespace": identity.namespace,
            "timestamp": _iso(server_now),
            "version": "1",
            "isolateCount": running,
            "executorCount": running,
            "inflight": report.inflight if report is not None else 0,
            "lastLeaseRenewal": _iso(server_now - (now - renewed)) if renewed else None,
            "queues": [{"name": name, "inflight": count} for name, count in sorted(report.queues.items())] if report else [],
            "extras": {
                "incarnation": identity.incarnation,
                "node": identity.node,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "state": _state(judgement, report),
                "ready_reason": "; ".join(judgement.reasons) or None,
                "concurrency": self._vitals.concurrency,
                "maxConcurrency": identity.most_executors or self._vitals.concurrency,
                "autoscale": identity.most_executors is not None,
                "prefetch": report.prefetch if report is not None else 0,
                "startedAt": _iso(server_now - (now - self._started_at)),
                "uptimeMs": round(1000 * (now - self._started_at)),
                "subscriptions": {"queues": list(identity.queues), "broadcasts": []},
                "queueDepth": self._waiting(),
                "paused_queues": sorted(self._vitals.paused),
                "executors": [dict(executor) for executor in report.executors] if report is not None else [],
                "active": [{**run, "startedAt": _iso(server_now - run["runtimeMs"] / 1000)} for run in report.active]
                if report is not None
                else [],
                "tree": tree_document(tree),
                "throughput": self._told.throughput(now),
                "completed": report.succeeded if report is not None else 0,
                "heartbeatIntervalMs": round(identity.interval * 1000),
            },
        }

    def _waiting(self) -> int | None:
        """Ready messages of its queues, when they were last counted."""
        if not self._depths:
            return None
        return sum(depth.pending for depth in self._depths if depth.queue in self._identity.queues)

    def _put(self, snapshot: Mapping[str, Any], now: float, ttl: float | None = None) -> None:
        try:
            lasting = max(60.0, 3 * self._identity.interval) if ttl is None else ttl
            self._store.put_heartbeat(self._identity.worker_id, snapshot, lasting)
            self._stored_at = now
        except StemError as error:
            _logger.info("cannot store the heartbeat: %s", error)


def _state(judgement: Judgement, report: PoolReport | None) -> str:
    if report is None or report.ready_executors == 0:
        return "starting"
    if report.is_draining:
        return "draining"
    return "stuck" if judgement.reasons else "ready"


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
