"""Workers of a simulation: the supervision tree of a real one, on turns instead of threads."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from stem_actors.actors import messages as m
from stem_actors.codecs.msgpack import decode_envelope, encode_payload
from stem_actors.executors.application import Application
from stem_actors.executors.child import Codec
from stem_actors.executors.process import ExecutorProcess
from stem_actors.ports import Stores
from stem_actors.supervision.base import StemActor
from stem_actors.supervision.context import ActorContext, ActorFactory, Report
from stem_actors.supervision.stepper import Stepper
from stem_actors.supervision.tree import Tree
from stem_actors.testing.executors import SimulatedProcess, Site
from stem_actors.testing.journal import Who
from stem_actors.worker import Worker
from stem_actors.worker_orders import WorkerOrders

__all__ = ["SimulatedWorker", "WorkerSite"]

_STARTS_WITHIN = 0.2  # seconds an executor takes to start, at most
_LOOK_AGAIN = 0.1
_LONGEST_TICK = 0.2  # most ticks find nothing, and here each of them moves the clock


class WorkerSite(Site, Protocol):
    """What workers need of the simulation they are in."""

    @property
    def seed(self) -> int: ...
    def next_number(self) -> int: ...
    def stores_for(self, who: Who) -> Stores: ...
    def executor_started(self, process: SimulatedProcess) -> None: ...
    def worker_ended(self, worker: SimulatedWorker, code: int) -> None: ...


class SimulatedWorker(Worker):
    """One life of a worker. `who` names it in the journal."""

    def __init__(self, site: WorkerSite, orders: WorkerOrders, application: Application) -> None:
        self._site = site
        self._application = application
        self._tickets = itertools.count(1)
        self._is_alive = True
        self._is_ending = False
        self.executors: list[SimulatedProcess] = []
        number = site.next_number()
        self.pool_tick = min(_LONGEST_TICK, max(self.pool_tick, orders.settings.visibility_timeout / 20))
        incarnation = f"{orders.worker_id}#{number}"
        self.who = Who(incarnation, number, incarnation)
        super().__init__(orders, site.stores_for(self.who), None, clock=site.clock, inline=application)
        self._holder = incarnation  # not a random one
        self._is_inline = False  # hard limits can be enforced
        self._selector.close()  # nothing is waited for here
        os.close(self._wake_fd)
        settings = orders.settings
        self._codec = Codec(partial(decode_envelope, max_bytes=settings.max_payload_bytes), encode_payload)
        chance = random.Random(f"{site.seed} {incarnation}")
        self.tree = _Tree(
            self._children(),
            name="worker",
            on_event=self._on_event,
            turns=site.turns,
            seed=number,
            chance=chance,
            on_end=self._tree_ended,
        )
        self._tree = cast(Tree, self.tree)

    @property
    def is_alive(self) -> bool:
        return self._is_alive

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do: nothing runs, and it is neither starting nor leaving."""
        return (
            self._is_ready and self._exit_code is None and self._mode is None and not any(each.is_busy for each in self.executors)
        )

    @property
    def worker_id(self) -> str:
        return self._orders.worker_id

    # ------------------------------------------------------------ the pool's launcher

    def launch(self, slot: int) -> int:
        ticket = next(self._tickets)
        self._plan(self._site.nemesis.chance.uniform(0.0, _STARTS_WITHIN), lambda: self._start_executor(slot, ticket))
        return ticket

    def _start_executor(self, slot: int, ticket: int) -> None:
        site, settings = self._site, self._orders.settings
        number = site.next_number()
        who = Who(f"executor-{number}", number)
        process = SimulatedProcess(site, self._application, self._codec, who, self.worker_id, settings.threads)
        self.executors = [*(each for each in self.executors if not each.has_exited()), process]
        site.executor_started(process)
        if not self.tree.tell(m.EXECUTOR_POOL, m.ExecutorUp(slot, ticket, cast(ExecutorProcess, process))):
            process.kill()
        else:
            site.turns.plan(site.nemesis.chance.uniform(0.0, _STARTS_WITHIN), process.start)

    def reap_all(self, timeout: float) -> bool:
        for process in self.executors:
            process.kill()
        return True

    def hung(self) -> None:
        self.end(70, "its main thread hangs")

    # ------------------------------------------------------------ its life

    def shut_down(self, mode: m.ShutdownMode = m.ShutdownMode.WARM) -> None:
        self._plan(0.0, lambda: self._obey(mode))

    def _obey(self, mode: m.ShutdownMode) -> None:
        leave_by = self._leave(self._tree, mode, None) if self._tree is not None else None
        if leave_by is not None:
            self._plan(leave_by - self._site.clock.monotonic(), lambda: self.end(0))

    def end(self, code: int, reason: str = "") -> None:
        if self._exit_code is None:
            self._exit_code = code
            if code:
                self._site.journal.happened("exit", self.who, code=code, reason=reason)
            self._plan(0.0, self._begin_end)

    def _begin_end(self) -> None:
        self.tree.begin_stop()
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        if self.tree.reason is None:
            self._plan(_LOOK_AGAIN, self._wait_for_end)
        else:
            self._gone(self._exit_code or 0)

    def _tree_ended(self) -> None:
        """A tree that has failed ends the process."""
        if self._is_alive and self._exit_code is None:
            self.end(70, f"its supervision tree ended: {self.tree.reason}")

    def killed(self) -> None:
        """SIGKILL: it ends without a word, and its executors with it."""
        if self._is_alive:
            self._gone(-9)

    def _gone(self, code: int) -> None:
        self._is_alive = False
        self.tree.kill()
        self.reap_all(0.0)
        self._site.worker_ended(self, code)

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        """Something that its main thread does: not while it is stopped, and not after its end."""

        def act() -> None:
            if self.tree.is_frozen:
                self._plan(_LOOK_AGAIN, action)
            elif self._is_alive:
                action()

        self._site.turns.plan(delay, act)

    def _wake(self) -> None:
        """There is no main thread to wake; what it would find out is planned."""


class _Tree(Stepper):
    """A tree whose actors draw from the simulation's chance what they would draw from generators of their own."""

    def __init__(self, *arguments: Any, chance: random.Random, on_end: Callable[[], None], **named: Any) -> None:
        self._chance = chance
        self._on_end = on_end
        super().__init__(*arguments, **named)

    def launch(self, factory: ActorFactory, context: ActorContext) -> None:
        def build(context: ActorContext) -> StemActor:
            actor = factory(context)
            for owner in (actor, getattr(actor, "_reconnect", None)):
                for name in ("_chance", "_random"):
                    if hasattr(owner, name):
                        setattr(owner, name, self._chance)
            return actor

        super().launch(build, context)

    def _hear(self, report: Report) -> None:
        super()._hear(report)
        if self.reason is not None:
            self._on_end()
