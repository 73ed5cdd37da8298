"""The runner: one run of a suite, from an empty directory to its history.

Starts the cluster, measures it at rest, lets the client enqueue at the workloads' pace while the nemesis follows its plan, keeps
the nodes alive meanwhile, waits until everything has come to rest, reads every record, measures again, and lets the nodes leave.
Whatever happens, no process that was started is left behind, and what was written down stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stem_actors import Stem
from stem_actors.config import Settings, masked_url
from stem_actors.errors import ConfigError, OperatorError, UsageError
from stem_chaos.client import ChaosClient, Tally
from stem_chaos.cluster import Cluster, Layout
from stem_chaos.generator import generate
from stem_chaos.history import Recorder, RunFacts, Verb, write_facts
from stem_chaos.measure import count_broker, count_processes
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.nemesis import Nemesis
from stem_chaos.nemesis.schedule import parse_schedule, plan
from stem_chaos.observer import Observer
from stem_chaos.place import Place
from stem_chaos.rollout import Rollout
from stem_chaos.store import make_directory
from stem_chaos.suites import Suite
from stem_chaos.upgrade import OldVersion, check_source, install_old
from stem_chaos.workload import all as built_in
from stem_chaos.workload.own import Own
from stem_chaos.workload.tasks import APP
from stem_chaos.workload.workload import Workload
from stem_cli.connection import load_apps

__all__ = ["Orders", "Progress", "Run"]

_TICK = 0.25  # seconds between two looks at the nodes


_NONE = Tally()


@dataclass(frozen=True, slots=True)
class Orders:
    """What to run. `schedule` None: the suite's; `own`: the operator's tasks in place of the suite's; `old`: as `--from`."""

    suite: Suite
    place: Place
    seed: int
    directory: Path
    schedule: str | None = None
    own: Own | None = None
    old: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `elapsed` and `total` seconds of the load; total 0 where nobody can say."""

    stage: str
    elapsed: float = 0.0
    total: float = 0.0
    calls: Tally = _NONE
    ended: int = 0
    faults: int = 0


class Run:
    """One run. `carry_out` once; afterwards `impossible` holds the faults that could not be injected, and why.

    Raises at once, before anything is made: UsageError for orders that cannot be carried out.
    """

    def __init__(self, orders: Orders, tell: Callable[[Progress], None]) -> None:
        self._orders = orders
        self._tell = tell
        self._workloads: Sequence[Workload] = orders.suite.made_workloads() if orders.own is None else [orders.own]
        self._schedule = _schedule(orders)
        entries = parse_schedule(self._schedule, FAULTS)
        self._faults = {entry.fault for entry in entries}
        self.planned = plan(entries, orders.seed, orders.suite.faults, FAULTS)
        self._target, self._app = _target(orders.own)
        _check(orders, self._faults)
        self._recorder = Recorder(orders.directory, "runner")
        self._facts = self._describe()
        self.impossible: Mapping[str, str] = {}

    def carry_out(self) -> None:
        """Do it all; the history is complete afterwards.

        Raises:
            UsageError: a task, an argument or a named fault is not possible; the run ended early.
            OperatorError: something around it failed: a server, a node that does not come up.
        """
        orders = self._orders
        make_directory(orders.directory)
        write_facts(orders.directory, self._facts)
        for workload in self._workloads:
            workload.prepare(orders.directory)
        with ExitStack() as stack:
            stack.callback(self._recorder.close)
            orders.place.check()
            stack.callback(orders.place.clean_up)
            old = self._install_old()
            write_facts(orders.directory, self._facts)
            cluster = Cluster(orders.directory, orders.place.broker, self._layout(old))
            stack.callback(cluster.close)
            self._tell(Progress("starting the nodes"))
            cluster.start()
            cluster.wait_ready()
            client_recorder = Recorder(orders.directory, "client")
            client = ChaosClient(self._target, self._senders(cluster), client_recorder)
            stack.callback(client_recorder.close)
            stack.callback(client.close)
            observer = Observer(cluster.app.settings, client, client_recorder)
            stack.callback(observer.close)
            nemesis_recorder = Recorder(orders.directory, "nemesis")
            nemesis = Nemesis(cluster, self.planned, nemesis_recorder, FAULTS)
            stack.callback(nemesis_recorder.close)
            stack.callback(nemesis.stop)
            rollout = Rollout(cluster, client, client_recorder, orders.suite.faults, old) if self._replaces else None
            if rollout is not None:
                stack.callback(rollout.stop)
            _Course(self, cluster, client, observer, nemesis, rollout).follow()

    # ------------------------------------------------------------ what it is made of

    @property
    def _replaces(self) -> bool:
        return self._orders.suite.replaces or self._orders.old is not None

    def _install_old(self) -> OldVersion | None:
        if self._orders.old is None:
            return None
        self._tell(Progress(f"installing {self._orders.old}"))
        old = install_old(self._orders.old, self._orders.directory / "old")
        told = f"{old.version} ({old.source}"
        told += ")" if old.has_probe else ", its leases not recorded)" if old.has_recording else ", not recorded)"
        self._facts = replace(self._facts, versions={**self._facts.versions, "old": told, "from": self._orders.old})
        return old

    def _layout(self, old: OldVersion | None) -> Layout:
        suite, place = self._orders.suite, self._orders.place
        queues = {"default", *(queue for queue in self._queues())}
        return Layout(
            app=self._app,
            nodes=suite.shape.nodes,
            workers=suite.shape.workers,
            concurrency=suite.shape.concurrency,
            visibility_timeout=suite.shape.visibility_timeout,
            settings={
                "STEM_MAX_DELIVERIES": str(suite.shape.max_deliveries),
                "STEM_WORKER_QUEUES": ",".join(sorted(queues)),
                **self._modules(),
                **place.settings,
            },
            environment={} if old is None else old.environment(),
            command=() if old is None else old.node,
            has_replica=suite.replica,
            is_disk_small="fill-disk" in self._faults,
            steps_clocks="step-clock" in self._faults,
        )

    def _modules(self) -> dict[str, str]:
        """What the nodes import beside the application: what the run needs, since an old version may not know the rest."""
        if self._orders.own is not None:
            return {}
        return {"STEM_TASKS": ",".join(sorted({type(workload).__module__ for workload in self._workloads}))}

    def _queues(self) -> set[str]:
        named = {definition.options.queue for definition in self._target.registry}
        own = self._orders.own
        return {queue for queue in named if queue is not None} | (set() if own is None else own.queues)

    def _senders(self, cluster: Cluster) -> list[Settings]:
        settings = cluster.app.settings
        senders = [settings] * self._orders.suite.senders
        if self._orders.suite.replica:
            senders[::2] = [replace(settings, broker_url=f"{settings.broker_url}?wait_replicas=1") for _ in senders[::2]]
        return senders

    def _describe(self) -> RunFacts:
        orders, shape = self._orders, self._orders.suite.shape
        return RunFacts(
            suite=orders.suite.name,
            broker=masked_url(orders.place.named or orders.place.broker),
            seed=orders.seed,
            visibility_timeout=shape.visibility_timeout,
            max_deliveries=shape.max_deliveries,
            nodes=shape.nodes,
            workers=shape.workers,
            concurrency=shape.concurrency,
            started_at=time.monotonic(),
            workloads={"own": {}} if orders.own is not None else orders.suite.workloads,
            schedule=self._schedule,
            versions={"new": _own_version()},
            duration=orders.suite.faults,
        )


class _Course:
    """The course of a run, step by step, once everything is there."""

    def __init__(
        self,
        run: Run,
        cluster: Cluster,
        client: ChaosClient,
        observer: Observer,
        nemesis: Nemesis,
        rollout: Rollout | None,
    ) -> None:
        self._run = run
        self._suite = run._orders.suite
        self._cluster = cluster
        self._client = client
        self._observer = observer
        self._nemesis = nemesis
        self._rollout = rollout
        self._began = time.monotonic()

    def follow(self) -> None:
        """From the first measurement to the last node's exit."""
        suite, run = self._suite, self._run
        self._measure("baseline")
        self._began = time.monotonic()
        self._observer.start()
        self._client.start(generate(run._workloads, run._orders.seed, suite.load))
        self._pass("calm", lambda: self._elapsed < suite.calm)
        self._nemesis.start()
        if self._rollout is not None:
            self._rollout.start()
        self._pass("faults", lambda: not self._nemesis.is_through() or self._elapsed < suite.calm + suite.faults)
        self._nemesis.stop()
        if self._rollout is not None:
            self._pass("replacing nodes", lambda: self._rollout is not None and not self._rollout.is_done)
        quiet_from = self._elapsed
        self._keep(quiet_from=self._nemesis.last_end)
        self._pass("recovery", lambda: self._elapsed < max(suite.load, quiet_from + suite.recovery))
        self._client.stop()
        self._observer.await_quiet(suite.patience, lambda: self._tick("waiting for the last tasks"))
        self._finish()

    def _finish(self) -> None:
        run, cluster = self._run, self._cluster
        self._tick("reading every record")
        self._observer.stop()
        self._observer.finish(self._client.queues)
        for workload in run._workloads:
            seen = workload.observe(run._orders.directory)
            if seen:
                run._recorder.happened(Verb.OBSERVE, workload=workload.name, **seen)
        cluster.wait_ready()
        self._measure("end")
        run._tell(Progress("letting the nodes leave"))
        self._keep(exits=cluster.stop(), ended_at=time.monotonic())

    def _keep(self, **facts: Any) -> None:
        """Store what is known of the run by now."""
        self._run._facts = replace(self._run._facts, **facts)
        write_facts(self._run._orders.directory, self._run._facts)

    # ------------------------------------------------------------ while time passes

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _pass(self, stage: str, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            self._tick(stage)
            self._client.is_broken.wait(_TICK)

    def _tick(self, stage: str) -> None:
        """Look after the nodes, and for what went wrong.

        Raises:
            UsageError, OperatorError: the run cannot go on.
        """
        self._cluster.keep_alive()
        if self._client.broken is not None:
            raise UsageError(f"a task cannot be enqueued: {self._client.broken}")
        for name, error in (("nemesis", self._nemesis.broken), ("rollout", self._rollout.error if self._rollout else None)):
            if error is not None:
                raise OperatorError(f"the {name} failed: {type(error).__name__}: {error}") from error
        self._run.impossible = self._nemesis.impossible
        if self._run._orders.schedule is not None and self._nemesis.impossible:
            raise UsageError("; ".join(self._nemesis.impossible.values()))
        self._run._tell(
            Progress(stage, self._elapsed, self._suite.load, self._client.tally, self._observer.ended, self._nemesis.done.total())
        )

    def _measure(self, when: str) -> None:
        pids = [node.pid for node in self._cluster.nodes if node.pid is not None]
        broker = count_broker(self._cluster.app.settings)
        self._run._recorder.happened(Verb.MEASURE, when=when, **count_processes(pids), **broker)


def _schedule(orders: Orders) -> str:
    if orders.schedule is not None:
        return orders.schedule
    place = orders.place
    return orders.suite.schedule_on(place.technology, place.is_private, place.has_links)


def _check(orders: Orders, faults: set[str]) -> None:
    """Refuse what could only be found out in the middle of the run."""
    suite, place = orders.suite, orders.place
    if orders.old is not None:
        check_source(orders.old)
    if place.technology not in suite.brokers:
        raise UsageError(f"the suite {suite.name} is for {' or '.join(suite.brokers)}: run it with --broker {suite.brokers[0]}")
    if suite.replica and not place.is_private:
        raise UsageError(f"the suite {suite.name} kills a primary, so it needs servers of its own: run it with --broker redis")
    if not place.is_private:
        private = sorted(fault for fault in faults if FAULTS[fault].scope == "broker")
        if private:
            raise UsageError(
                f"{', '.join(private)} would hit others as well on a broker that is named by its URL; run with --broker "
                f"{place.technology} for a private one, or leave them out of the schedule"
            )


def _target(own: Own | None) -> tuple[Stem, str]:
    """The application whose tasks are called, and its name. Of the operator's own, every task is looked up."""
    if own is None:
        return built_in.app, APP
    if os.environ.get("STEM_CHAOS_APP"):
        raise ConfigError("STEM_CHAOS_APP is set: this is a process of a run already")
    (app, *_) = load_apps(Settings(app=own.app))
    for task in own.tasks:
        if app.registry.find(task.name) is None:
            known = ", ".join(sorted(each.name for each in app.registry)) or "none"
            raise UsageError(f"{own.app} has no task {task.name!r}; it has {known}")
    return app, own.app


def _own_version() -> str:
    try:
        return version("stem-actors")
    except PackageNotFoundError:
        return "not installed"
