"""`Simulation`: an application, its workers and its broker in one process, on one thread, in virtual time.

Everything is real but what it stands on: the actors of real workers take turns instead of running in threads, the broker is the
one in memory, executors run tasks on strands, and the clock stands still while anything happens. What comes next is drawn from
the seed, so the same seed gives the same run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, Self, TypedDict, TypeVar

from stem_actors.client import Client
from stem_actors.config import Settings
from stem_actors.errors import UsageError
from stem_actors.executors.application import ApplicationSource, describe
from stem_actors.executors.frames import FromExecutor
from stem_actors.middleware.chain import Middleware
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_actors.model.task import TaskRegistry
from stem_actors.ports import Stores
from stem_actors.supervision.stepper import Turns
from stem_actors.testing.clock import VirtualClock
from stem_actors.testing.executors import SimulatedProcess, executor_of, over_the_wire
from stem_actors.testing.faults import Faults, Nemesis
from stem_actors.testing.journal import Attempt, Journal, Who
from stem_actors.testing.stores import Fate, SimulatedServer, WrapBroker
from stem_actors.testing.strands import ExecutorDeath, current_strand
from stem_actors.testing.workers import SimulatedWorker
from stem_actors.worker_orders import WorkerOrders

__all__ = ["NotQuiet", "Simulatable", "Simulation", "SimulationOptions", "TaskRun"]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_PROGRAM = Who("client", 0)
_NEMESIS = Who("nemesis", 1)
_QUIET_WITHIN, _BUSY_FOR = 30 * 86400.0, 6 * 3600.0
_NAMED = 10
_POLL, _LONGEST_POLL = 0.05, 1.0
_INSTANT = 1e-9  # seconds: the clock always moves, whatever rounding leaves of a difference
_AWAKE = 2.0  # seconds before a delayed task is due that are gone through one by one


class NotQuiet(AssertionError):
    """Tasks have not ended though the time they were given is over; the text says which."""


class Enqueued(Protocol[R_co]):
    """A handle, as `Task.enqueue` returns it."""

    id: str

    def status(self) -> TaskRecord: ...
    def get(self, timeout: float | None = None) -> R_co: ...
    def revoke(self, terminate: bool = False, reason: str | None = None) -> None: ...


class Enqueueable(Protocol[P, R_co]):
    """A task."""

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Enqueued[R_co]: ...


class Simulatable(Protocol):
    """What a simulation needs of its application, a `Stem`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def registry(self) -> TaskRegistry: ...
    @property
    def client(self) -> Client: ...
    @property
    def middlewares(self) -> Sequence[Middleware]: ...


class SimulationOptions(TypedDict, total=False):
    """See `Simulation`."""

    workers: int
    concurrency: int
    settings: Mapping[str, Any]
    separate_results: bool
    wrap_broker: WrapBroker | None


class TaskRun(Generic[R_co]):
    """A task that was enqueued in a simulation, with all that is known of it."""

    def __init__(self, simulation: Simulation, handle: Enqueued[R_co]) -> None:
        self._simulation = simulation
        self.handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return f"<TaskRun {self.id}: {self.state.value}, {len(self.attempts)} attempts>"

    @property
    def record(self) -> TaskRecord:
        """Its record, as `Handle.status` gives it."""
        return self._simulation.record(self.id)

    @property
    def state(self) -> TaskState:
        """Where it stands."""
        return self.record.state

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Every time that its function ran, in order."""
        return self._simulation.journal.attempts(self.id)

    @property
    def waits(self) -> Sequence[float]:
        """Virtual seconds between the end of one attempt and the start of the next."""
        pairs = itertools.pairwise(self.attempts)
        return [round(after.started_at - (before.ended_at or before.started_at), 6) for before, after in pairs]

    @property
    def result(self) -> R_co:
        """What it returned.

        Raises:
            TaskFailed, TaskCancelled: it did not succeed.
            ResultTimeout: it has not ended; `Simulation.until_quiet` goes on until it has.
        """
        return self.handle.get(timeout=0)

    @property
    def error(self) -> str | None:
        """How it failed, as `ValueError: not yet`; None when it has not."""
        error = self.record.error
        return None if error is None else f"{error.type}: {error.message}"

    @property
    def dead_letter(self) -> str | None:
        """Why it was set aside; None when it was not."""
        return self._simulation.dead_letter(self.id)

    def revoke(self, terminate: bool = False, reason: str | None = None) -> None:
        """Ask for it to be cancelled, as `Handle.revoke` does."""
        self.handle.revoke(terminate, reason)


class Simulation:
    """One run of an application in virtual time. Use it as a context manager, or close it: it borrows the application meanwhile.

    `seed`         decides everything that is up to chance
    `faults`       what goes wrong; None: nothing
    `workers`      so many, each with `concurrency` executors
    `settings`     replaces settings of the application, by name: `settings={"visibility_timeout": 5.0}`
    `separate_results`  results on a server of their own
    `wrap_broker`  puts something of your own in front of the broker, such as a `stem_actors.testing.forwarding.ForwardingBroker`

    While it is open, tasks of the application that are enqueued anywhere go to the simulated broker, `time.sleep` in a task lets
    virtual time pass, `os._exit` in one ends its simulated executor, and `random` is seeded.
    """

    def __init__(
        self,
        app: Simulatable,
        *,
        seed: int = 0,
        faults: Faults | None = None,
        workers: int = 1,
        concurrency: int = 2,
        settings: Mapping[str, Any] | None = None,
        separate_results: bool = False,
        wrap_broker: WrapBroker | None = None,
    ) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.began_at = self.clock.now()
        self.turns = Turns(self.clock, seed)
        self.journal = Journal(self.clock)
        self.nemesis = Nemesis(faults or Faults.none(), seed, self, lambda: self.clock.elapsed)
        self._app = app
        self._application = describe(app.registry, app)
        self.hello = over_the_wire(FromExecutor.READY, self._application.catalogue)
        self.settings = self._worker_settings(concurrency, settings or {})
        self._server = SimulatedServer(self.turns, self.clock, self.settings, self, self.journal, separate_results, wrap_broker)
        self._numbers = itertools.count(2)
        self._restarts = {_worker_id(number) for number in range(1, workers + 1)}
        self._executors: list[SimulatedProcess] = []  # all that ever were
        self._faults: dict[int, dict[str, Any]] = {}
        self.workers: list[SimulatedWorker] = []
        self._stack = contextlib.ExitStack()
        self._borrow()
        try:
            for number in range(1, workers + 1):
                self._start_worker(_worker_id(number))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the application back. What still runs is ended where it waits. Idempotent."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.tree.kill()
        executors, self._executors = self._executors, []
        for process in executors:
            process.unwind()
        self._stack.close()

    # ------------------------------------------------------------ for tests

    @property
    def now(self) -> float:
        """Virtual seconds since the simulation began."""
        return self.clock.elapsed

    def enqueue(self, task: Enqueueable[P, R_co], *args: P.args, **kwargs: P.kwargs) -> TaskRun[R_co]:
        """Enqueue a task: `run.enqueue(welcome, "a@b.c")`, `run.enqueue(welcome.options(countdown=60), "a@b.c")`."""
        return self.follow(task.enqueue(*args, **kwargs))

    def follow(self, handle: Enqueued[R_co]) -> TaskRun[R_co]:
        """What is known of a task that was enqueued otherwise."""
        return TaskRun(self, handle)

    def advance(self, seconds: float) -> None:
        """Let so much virtual time pass, and all happen that falls into it."""
        self._check_outside("advance")
        self._go_on(lambda: False, seconds, each_turn=False, may_skip_idle=True)

    def until(self, condition: Callable[[], object], limit: float = 3600.0) -> None:
        """Go on until `condition()` is true.

        Raises:
            NotQuiet: it does not within `limit` virtual seconds.
        """
        self._check_outside("until")
        if not self._go_on(condition, limit):
            raise NotQuiet(f"the condition does not hold after {limit:g} virtual seconds (seed {self.seed})")

    def until_quiet(self, limit: float | None = None) -> None:
        """Go on until every task has ended for good and nothing will go wrong any more.

        Raises:
            NotQuiet: that is not so after `limit` virtual seconds; when nothing is said, after 30 days, of which workers are busy
                for six hours. At once where a task waits in a queue that no worker serves.
        """
        self._check_outside("until_quiet")
        busy_until = self.clock.monotonic() + (_BUSY_FOR if limit is None else float("inf"))

        def is_over() -> bool:
            return (self.nemesis.is_over and self._is_at_rest()) or self.clock.monotonic() > busy_until

        self._go_on(is_over, _QUIET_WITHIN if limit is None else limit, each_turn=False)
        if not self._is_quiet():
            rest = [self._described(task_id) for task_id in dict.fromkeys(self._server.unfinished())]
            named = "; ".join(rest[:_NAMED])
            raise NotQuiet(f"{len(rest)} task(s) have not ended after {self.now:.0f} virtual seconds (seed {self.seed}): {named}")

    def _is_quiet(self) -> bool:
        return self.nemesis.is_over and self._server.is_empty

    def _is_at_rest(self) -> bool:
        """Whether nothing is left, or all that is left waits where nobody looks."""
        return self._server.is_empty or self._server.holds_nothing_but(self.settings.worker_queues)

    def sleep(self, seconds: float) -> None:
        """In a task: wait so long in virtual time, as `time.sleep` does there. In a test: `advance`."""
        strand = current_strand()
        if strand is None:
            self.advance(seconds)
        else:
            executor_of(strand).sleep(strand, seconds)

    def record(self, task_id: str) -> TaskRecord:
        """What is known of a task, at the server itself."""
        return self._server.record(task_id) or TaskRecord(task_id, TaskState.QUEUED)

    def dead_letter(self, task_id: str) -> str | None:
        """Why a task was set aside; None when it was not."""
        return self._server.dead_letter_reason(task_id)

    # ------------------------------------------------------------ what a test may do to it

    def kill_executor(self, worker: int = 1) -> None:
        """Kill the executor of a worker that runs something; the worker replaces it.

        Raises:
            UsageError: nothing runs there.
        """
        target = self._worker(worker)
        busy = [process for process in target.executors if process.is_busy]
        if not busy:
            raise UsageError(f"no executor of worker {worker} runs anything; go on until one does")
        self._kill_executor(target, busy[0])

    def kill_actor(self, actor: str, worker: int = 1) -> None:
        """Make an actor of a worker crash before its next message; its supervisor restarts it."""
        self._kill_actor(self._worker(worker), actor)

    def kill_worker(self, worker: int = 1, restart: bool = True) -> None:
        """End a worker without a word, and its executors with it; unless told otherwise it is started again."""
        target = self._worker(worker)
        if not restart:
            self._restarts.discard(target.worker_id)
        self._kill_worker(target)

    def stop_worker(self, seconds: float, worker: int = 1) -> None:
        """Stop a worker as SIGSTOP does, and let it go on so much later."""
        self._stop(self._worker(worker), seconds)

    def shut_down(self, worker: int = 1) -> None:
        """Let a worker leave as SIGTERM does. It is not started again."""
        target = self._worker(worker)
        self._restarts.discard(target.worker_id)
        target.shut_down()

    # ------------------------------------------------------------ going on

    def _go_on(
        self, condition: Callable[[], object], limit: float, *, each_turn: bool = True, may_skip_idle: bool = False
    ) -> bool:
        """Take turns until `condition` holds; False after `limit` virtual seconds.

        It is looked at behind `each_turn`, or else where there is nothing more to do at a moment.
        """
        clock, nemesis, step = self.clock, self.nemesis, self.turns.step
        end = clock.elapsed + limit
        nemesis.look()
        if each_turn and condition():
            return True
        while True:
            while step():
                if each_turn and condition():
                    return True
                if nemesis.aims:
                    nemesis.look()
            if condition():
                return True
            now = clock.elapsed
            if now >= end:
                return False
            if not self._leap(end - now, may_skip_idle):
                due, hit = self.turns.next_due(), nemesis.next_due()
                until = end - now if hit is None else min(end, hit) - now
                clock.advance(max(_INSTANT, until if due is None else min(until, due - clock.monotonic())))
            nemesis.look()

    def _leap(self, most: float, may_skip_idle: bool) -> bool:
        """Where nobody does anything before a delayed task is due, go there: all clocks of the world but those inside of workers.

        For these no time passes, so that they need not be taken through every second of it.
        """
        if not self.nemesis.is_over or self._faults or not all(map(self._is_idle, self.workers)):
            return False
        due = self._server.next_delayed
        if due is None and not (may_skip_idle and self._server.is_empty):
            return False
        seconds = min(most, most if due is None else due - self.clock.now() - _AWAKE)
        if seconds <= _AWAKE:
            return False
        self.clock.leap(seconds)
        self.turns.news()
        return True

    def _is_idle(self, worker: SimulatedWorker) -> bool:
        """Whether it has nothing to do; one that is dead, whether it stays so."""
        return worker.is_idle if worker.is_alive else worker.worker_id not in self._restarts

    def _check_outside(self, verb: str) -> None:
        if current_strand() is not None:
            raise UsageError(f"`{verb}` is for the test; in a task, wait with time.sleep or asyncio.sleep")

    # ------------------------------------------------------------ what the stores ask (`Network`)

    def fate_of(self, who: Who, call: str) -> Fate:
        return self.nemesis.fate_of(who, call)

    def lateness(self) -> float:
        return self.nemesis.lateness()

    def wait_for(self, look: Callable[[], T], timeout: float) -> T:
        if current_strand() is None:
            self._go_on(lambda: bool(look()), timeout)
            return look()
        end, pause = self.now + timeout, _POLL
        while not (found := look()) and (left := end - self.now) > 0:
            self.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_POLL)
        return found

    # ------------------------------------------------------------ what workers ask (`WorkerSite`)

    def next_number(self) -> int:
        return next(self._numbers)

    def stores_for(self, who: Who) -> Stores:
        return self._server.stores_for(who)

    def executor_started(self, process: SimulatedProcess) -> None:
        self._executors.append(process)

    def worker_ended(self, worker: SimulatedWorker, code: int) -> None:
        if code and worker.worker_id in self._restarts:
            self.turns.plan(self.nemesis.restart_after(), lambda: self._restart(worker.worker_id))

    def _restart(self, worker_id: str) -> None:
        if worker_id in self._restarts:
            self._start_worker(worker_id)

    def _start_worker(self, worker_id: str) -> None:
        worker = SimulatedWorker(self, WorkerOrders(self.settings, worker_id, ApplicationSource("simulated")), self._application)
        self.workers = [*(each for each in self.workers if each.worker_id != worker_id), worker]

    def _worker(self, number: int) -> SimulatedWorker:
        worker = next((each for each in self.workers if each.worker_id == _worker_id(number) and each.is_alive), None)
        if worker is None:
            raise UsageError(f"worker {number} does not live")
        return worker

    # ------------------------------------------------------------ what goes wrong (`Victims`)

    def kill_an_actor(self, chance: random.Random) -> None:
        if living := self._living():
            worker = chance.choice(living)
            if actors := sorted(worker.tree.directory.ids() - {"worker", "work"}):
                self._kill_actor(worker, chance.choice(actors))

    def kill_an_executor(self, chance: random.Random) -> None:
        living = [(worker, each) for worker in self._living() for each in worker.executors if not each.has_exited()]
        if living:
            self._kill_executor(*chance.choice(living))

    def kill_a_worker(self, chance: random.Random) -> None:
        if living := self._living():
            self._kill_worker(chance.choice(living))

    def stop_a_worker(self, chance: random.Random, seconds: float) -> None:
        if living := self._living():
            self._stop(chance.choice(living), seconds)

    def cut_off(self, seconds: float) -> None:
        """Let the broker be out of everybody's reach for so long."""
        call = self._fault_begins("outage", f"{seconds:.3f} s", everything=True)
        self.nemesis.cut_off(seconds)
        self.turns.plan(seconds, lambda: self._fault_ends(call))

    def jump(self, seconds: float) -> None:
        call = self._fault_begins("clock-jump", f"{seconds:.3f} s", everything=True)
        self.clock.advance(seconds)
        self._fault_ends(call)

    def lost(self, who: Who, call: str, fate: Fate) -> None:
        self._fault_ends(self._fault_begins(fate.value, call, pids=[who.pid], incarnations=_incarnations(who)))

    def _kill_actor(self, worker: SimulatedWorker, actor: str) -> None:
        self._fault_ends(self._worker_fault("kill-actor", actor, worker))
        worker.tree.directory.kill(actor)

    def _kill_executor(self, worker: SimulatedWorker, process: SimulatedProcess) -> None:
        self._fault_ends(self._fault_begins("kill-executor", process.who.name, pids=[process.who.pid], incarnations=[]))
        process.die("signal 9 (SIGKILL)")

    def _kill_worker(self, worker: SimulatedWorker) -> None:
        self._fault_ends(self._worker_fault("kill-worker", worker.who.name, worker))
        worker.killed()

    def _stop(self, worker: SimulatedWorker, seconds: float) -> None:
        call = self._worker_fault("stop-worker", f"{seconds:.3f} s", worker)
        worker.tree.freeze()

        def go_on() -> None:
            self._fault_ends(call)
            worker.tree.thaw()

        self.turns.plan(seconds, go_on)

    def _living(self) -> list[SimulatedWorker]:
        return [worker for worker in self.workers if worker.is_alive and not worker.tree.is_frozen]

    def _worker_fault(self, fault: str, target: str, worker: SimulatedWorker) -> int:
        pids = [worker.who.pid, *(each.who.pid for each in worker.executors if not each.has_exited())]
        return self._fault_begins(fault, target, pids=pids, incarnations=_incarnations(worker.who))

    def _fault_begins(self, fault: str, target: str, **hit: Any) -> int:
        call = self.journal.invoke("fault", _NEMESIS, fault=fault, target=target, **hit)
        self._faults[call] = {"fault": fault, "target": target, **hit}
        return call

    def _fault_ends(self, call: int) -> None:
        self.journal.end("fault", "ok", call, _NEMESIS, **self._faults.pop(call))

    # ------------------------------------------------------------ the application is borrowed

    def _borrow(self) -> None:
        """Lead the application's client here, let what a task does to time and process be done to ours, and draw by the seed."""
        with contextlib.ExitStack() as stack:
            program = _ProgramClock(self.clock)
            stack.enter_context(self._app.client.diverted(self._connect, self._who, program, self.sleep))
            stack.callback(random.setstate, random.getstate())
            random.seed(self.seed)
            stack.callback(setattr, time, "sleep", time.sleep)
            time.sleep = _virtually(time.sleep)
            stack.callback(setattr, os, "_exit", os._exit)
            os._exit = _ending_executors(os._exit)
            self._stack = stack.pop_all()

    def _connect(self, who: Hashable) -> Stores:
        assert isinstance(who, Who)
        return self._server.stores_for(who)

    def _who(self) -> Who:
        strand = current_strand()
        return _PROGRAM if strand is None else executor_of(strand).who

    def _worker_settings(self, concurrency: int, changes: Mapping[str, Any]) -> Settings:
        """Those of the application, for workers of every queue that its tasks name."""
        settings = self._app.settings
        queues = (*settings.worker_queues, *(each.options.queue or settings.default_queue for each in self._app.registry))
        ours = {"queues": tuple(dict.fromkeys(queues)), "concurrency": concurrency, "burst": False, **changes}
        return replace(settings, **ours)

    def _described(self, task_id: str) -> str:
        record = self.record(task_id)
        name = record.meta.get("task") or next(
            (each.detail.get("task") for each in self.journal.of("enqueue") if each.task_id == task_id), "a task"
        )
        return f"{name} {task_id} is {record.state.value} after {len(self.journal.attempts(task_id))} attempts"


class _ProgramClock:
    """The clock of the program that enqueues and waits: it takes part in leaps."""

    def __init__(self, clock: VirtualClock) -> None:
        self.now = clock.now
        self.monotonic = clock.now


class _Exit(Protocol):
    def __call__(self, status: int) -> NoReturn: ...


def _worker_id(number: int) -> str:
    return f"worker-{number}"


def _incarnations(who: Who) -> list[str]:
    return [] if who.incarnation is None else [who.incarnation]


def _virtually(real: Callable[[Any], None]) -> Callable[[Any], None]:
    """`time.sleep`, which inside of a task lets virtual time pass."""

    def sleep(seconds: Any, /) -> None:
        strand = current_strand()
        if strand is None:
            real(seconds)
        else:
            executor_of(strand).sleep(strand, seconds)

    return sleep


def _ending_executors(real: _Exit) -> _Exit:
    """`os._exit`, which inside of a task ends the simulated executor."""

    def leave(status: int) -> NoReturn:
        if current_strand() is None:
            real(status)
        raise ExecutorDeath(f"exit code {status}")

    return leave
