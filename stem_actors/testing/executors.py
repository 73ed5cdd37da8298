"""Executors of a simulation: the worker's side and the inside in one object, and the tasks run for real, on strands.

The pool talks to them as to processes. What is inside is the executor that processes have, but for how it waits: a run is a
strand, or a coroutine on a loop in virtual time.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, cast

import msgpack

from stem_actors.clock import Clock
from stem_actors.executors.application import Application
from stem_actors.executors.async_child import AsyncExecutor
from stem_actors.executors.channel import Channel
from stem_actors.executors.child import Codec, Executor
from stem_actors.executors.context import enter, leave
from stem_actors.executors.frames import EndKind, FromExecutor, Handed, InterruptKind
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.runs import Run, classify, interrupt_error
from stem_actors.supervision.stepper import Turns
from stem_actors.testing.event_loop import VirtualLoop
from stem_actors.testing.faults import Nemesis
from stem_actors.testing.journal import Journal, Who
from stem_actors.testing.strands import ExecutorDeath, SimulationOver, Strand

__all__ = ["SimulatedProcess", "Site", "executor_of", "over_the_wire"]

_numbers = itertools.count(1)
_SIGKILL = 9


class Site(Protocol):
    """What executors need of the simulation they are in."""

    @property
    def turns(self) -> Turns: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def nemesis(self) -> Nemesis: ...
    @property
    def hello(self) -> list[Any]:
        """What an executor says when it has loaded the application."""
        ...


class _Process:
    """Stands in for the process itself."""

    exitcode: int | None = None

    def __init__(self, pid: int) -> None:
        self.pid = pid


class _Socket:
    """Stands in for the worker's end of the socket pair, of which only the number is used."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        pass


class SimulatedProcess(ExecutorProcess):
    """One executor, as its pool sees it. `who` names it in the journal."""

    def __init__(self, site: Site, application: Application, codec: Codec, who: Who, worker: str, threads: int) -> None:
        number = next(_numbers)
        sock = _Socket(-2 * number)
        super().__init__(cast(BaseProcess, _Process(who.pid)), cast(socket.socket, sock), -1, -1, -2 * number - 1)
        self.who = who
        self.worker = worker
        self.cause = ""
        self._site = site
        self._threads = threads
        self._reported: list[list[Any]] = []
        self._unclaimed: deque[Handed] = deque()
        self._channel = _Reports(self)
        self._inside = _Inside(self, site, application, codec, self._channel)
        self._is_stirring = False
        self._is_stopping = False
        self._ended_with: int | None = None

    def start(self) -> None:
        """Say hello: the application is loaded."""
        if self._ended_with is None:
            self.report(self._site.hello)

    @property
    def is_busy(self) -> bool:
        """Whether it runs anything."""
        return self._ended_with is None and self._inside.count > 0

    # ------------------------------------------------------------ the worker's side

    def hand(self, tasks: Sequence[Handed]) -> None:
        for task in tasks:
            self.handed[task.claim] = None
        if self._ended_with is None:
            self._unclaimed.extend(tasks)
            self._stir()

    def take_back(self) -> list[int]:
        taken = [handed.claim for handed in self._unclaimed]
        self._unclaimed.clear()
        for claim in taken:
            del self.handed[claim]
        return taken

    def receive(self) -> Iterator[list[Any]]:
        if not self._reported and self._ended_with is not None:
            raise EOFError
        yield from self.drain()

    def drain(self) -> Iterator[list[Any]]:
        frames, self._reported = self._reported, []
        if self._ended_with is None:
            self._site.turns.silence(self.sock.fileno())
        for frame in frames:
            if frame[0] == FromExecutor.ENDED:
                self.handed.pop(frame[1], None)
            yield frame

    def interrupt(self, claim: int, kind: InterruptKind, reason: str | None = None) -> None:
        self._inside.interrupt(claim, kind, reason)

    def nudge(self) -> None:
        """Not needed: an interrupt is heard at once."""

    def reply(self, number: int, error: Sequence[str] | None, answer: bytes) -> None:
        """Nobody asks: what a task enqueues goes through stores of its own."""

    @property
    def wants_to_write(self) -> bool:
        return False

    def flush(self) -> None:
        """There is nothing to flush."""

    def request_stop(self) -> None:
        self._is_stopping = True
        self._stir()

    def kill(self) -> None:
        self.die("signal 9 (SIGKILL)", -_SIGKILL)

    def has_exited(self) -> bool:
        return self._ended_with is not None

    def cause_of_death(self) -> str:
        return self.cause or "unknown"

    def close(self) -> None:
        for fd in (self.sock.fileno(), self.pidfd):
            self._site.turns.silence(fd)

    # ------------------------------------------------------------ inside

    def die(self, cause: str, code: int = -_SIGKILL) -> None:
        """End at once; what was reported can still be read."""
        if self._ended_with is not None:
            return
        self._ended_with, self.cause = code, cause
        cast(_Process, self.process).exitcode = code
        self._site.journal.happened("death", self.who, cause=cause)
        for fd in (self.sock.fileno(), self.pidfd):
            self._site.turns.signal(fd)

    def report(self, frame: list[Any]) -> None:
        """Something is there for the worker to read."""
        if self._ended_with is None:
            self._reported.append(frame)
            self._site.turns.signal(self.sock.fileno())

    def next_handed(self) -> Handed | None:
        """Claim a task: from now on it cannot be taken back."""
        return self._unclaimed.popleft() if self._unclaimed else None

    def stir(self, delay: float = 0.0) -> None:
        """Go on inside, in so many seconds."""
        self._site.turns.plan(delay, self._go_on)

    def _stir(self) -> None:
        if not self._is_stirring:
            self._is_stirring = True
            self.stir()

    def _go_on(self) -> None:
        self._is_stirring = False
        if self._ended_with is not None:
            return
        self._inside.go_on(self._threads)
        if not self.has_exited() and self._is_stopping and not self._inside.count and not self._unclaimed:
            self.die("exit code 0", 0)

    def unwind(self) -> None:
        """End what still waits inside: the simulation is over."""
        self.die("the simulation is over")
        self._inside.unwind()


class _Reports(Channel):
    """The executor's end of its pipes, without any: reports go over at once, and so does what its worker says."""

    def __init__(self, process: SimulatedProcess) -> None:
        self.interrupts = {}
        self.cancelled = set()
        self.waiting = deque()
        self.is_stopping = False
        self._process = process

    def send(self, kind: FromExecutor, *parts: Any) -> None:
        self._process.report(over_the_wire(kind, *parts))

    def try_claim(self) -> Handed | None:
        return self._process.next_handed()

    def read(self, block: bool) -> None:
        """All that was said is known."""


def over_the_wire(kind: FromExecutor, *parts: Any) -> list[Any]:
    """What a worker gets to read. What has no wire form fails here as it would there."""
    frame: bytes = msgpack.packb((int(kind), *parts), datetime=True)
    said: list[Any] = msgpack.unpackb(frame, strict_map_key=False)
    return said


class _Running:
    """A run of a sync task. `wakes` counts up with each plan to wake it: only the last one counts."""

    def __init__(self, inside: _Inside, run: Run) -> None:
        self.inside = inside
        self.run = run
        self.strand = Strand(self)
        self.wakes = 0
        self.ended: tuple[EndKind, Any] | BaseException | None = None


class _Inside(Executor):
    """The executor itself. `who` is what code that runs in it answers when it is asked who it is."""

    def __init__(self, process: SimulatedProcess, site: Site, application: Application, codec: Codec, channel: _Reports) -> None:
        super().__init__(channel, application, codec, 1)
        self._process = process
        self._site = site
        self._reports = channel
        self._clock = site.clock  # type: ignore[assignment]  # made for the host's own
        self._started: dict[int, tuple[float, float]] = {}
        self._running: dict[int, _Running] = {}
        self._coroutines: _Coroutines | None = None
        self._loop_strand: Strand | None = None
        self._loop_wakes = 0
        self.who = process.who

    def settle_in(self) -> None:
        """Signals, and what a fork does, are the program's own business."""

    @property
    def count(self) -> int:
        """Runs that have not been reported."""
        return len(self._started)

    def go_on(self, threads: int) -> None:
        """Claim what there is room for, and run."""
        if self._coroutines is not None:
            self._run_loop()
            return
        while len(self._started) < threads and (handed := self._process.next_handed()) is not None:
            run = self.prepare(handed)
            if run is None:
                continue
            if run.task.is_async:
                self._coroutines = _Coroutines(self, self._reports, self._site.clock)
                self._coroutines.begin(run)
                self._run_loop()
                return
            self._begin(run)

    # ------------------------------------------------------------ around each run

    def prepare(self, handed: Handed) -> Run | None:
        run = super().prepare(handed)
        if run is not None:
            self._started[handed.claim] = self._site.clock.now(), self._site.clock.monotonic()
            self._site.journal.happened(
                "start", self.who, run.context.id, attempt=handed.attempt, task=run.task.name, worker=self._process.worker
            )
        return run

    def report(self, run: Run, kind: EndKind, detail: Any, started_at: float, seconds: float) -> None:
        """It ends as it ended, some time later if runs are to take some."""
        if isinstance(detail, ExecutorDeath):  # of a coroutine
            self._process.die(detail.cause)
            return
        delay = self._site.nemesis.run_time()
        if delay:
            self._site.turns.plan(delay, lambda: self._report(run, kind, detail))
        else:
            self._report(run, kind, detail)

    def _report(self, run: Run, kind: EndKind, detail: Any) -> None:
        if self._process.has_exited():
            return
        claim = run.handed.claim
        started_at, began = self._started.pop(claim)
        self._reports.forget(claim)
        self._site.journal.happened("end", self.who, run.context.id, attempt=run.handed.attempt, **_ending(kind, detail))
        super().report(run, kind, detail, started_at, self._site.clock.monotonic() - began)
        self._process.stir()

    # ------------------------------------------------------------ sync tasks

    def _begin(self, run: Run) -> None:
        running = self._running[run.handed.claim] = _Running(self, run)
        running.strand.begin(lambda: self._call(running))
        self._came_back(running)

    def _call(self, running: _Running) -> None:
        """On the strand: the run, from its first line to its last."""
        run = running.run
        token = enter(run.context)
        try:
            self._raise_interrupt(run.handed.claim)
            running.ended = EndKind.RETURNED, run.call()
        except (ExecutorDeath, SimulationOver) as error:
            running.ended = error
        except BaseException as error:  # user code
            running.ended = classify(error)
        finally:
            leave(token)

    def _came_back(self, running: _Running) -> None:
        """The strand waits, or is done."""
        if running.ended is None:
            return
        del self._running[running.run.handed.claim]
        if isinstance(running.ended, ExecutorDeath):
            self._process.die(running.ended.cause)
        elif not isinstance(running.ended, BaseException):
            self.report(running.run, *running.ended, 0.0, 0.0)

    def sleep(self, strand: Strand, seconds: float) -> None:
        """On the strand: let virtual time pass. An interrupt is raised here, but for a coroutine, which blocks its loop."""
        running = strand.owner
        if isinstance(running, _Running):
            wake = running.wakes = running.wakes + 1
            self._site.turns.plan(max(0.0, seconds), lambda: self._wake(running, wake))
        else:
            wake = self._loop_wakes = self._loop_wakes + 1
            self._site.turns.plan(max(0.0, seconds), lambda: self._wake_loop(wake))
        strand.wait()

    def _wake(self, running: _Running, wake: int, error: BaseException | None = None) -> None:
        if running.wakes == wake and not running.strand.is_done and not self._process.has_exited():
            running.wakes += 1
            running.strand.resume(error)
            self._came_back(running)

    # ------------------------------------------------------------ async tasks

    def _run_loop(self) -> None:
        coroutines = self._coroutines
        assert coroutines is not None
        if self._loop_strand is not None:  # a coroutine blocks the loop
            return
        strand = self._loop_strand = Strand(self)
        strand.begin(coroutines.run_ready)
        self._loop_came_back()

    def _wake_loop(self, wake: int) -> None:
        strand = self._loop_strand
        if strand is not None and self._loop_wakes == wake and not self._process.has_exited():
            strand.resume()
            self._loop_came_back()

    def _loop_came_back(self) -> None:
        strand, coroutines = self._loop_strand, self._coroutines
        assert strand is not None
        assert coroutines is not None
        if not strand.is_done:
            return
        self._loop_strand = None
        if (due := coroutines.loop.next_due()) is not None:
            self._process.stir(max(0.0, due - self._site.clock.monotonic()))

    # ------------------------------------------------------------ interrupts, and what a task says by its context

    def interrupt(self, claim: int, kind: InterruptKind, reason: str | None) -> None:
        """Its worker wants a run to stop."""
        if self._process.has_exited() or claim in self._reports.interrupts:
            return
        self._reports.interrupts[claim] = (kind, reason)
        if kind is InterruptKind.REVOKED:
            self._reports.cancelled.add(claim)
        running = self._running.get(claim)
        if running is not None:
            running.wakes += 1
            wake = running.wakes
            error = interrupt_error(*self._reports.interrupts.pop(claim))
            self._site.turns.plan(0.0, lambda: self._wake(running, wake, error))
        elif self._coroutines is not None:
            self._process.stir()

    def is_cancelled(self, claim: int) -> bool:
        return claim in self._reports.cancelled

    def _say(self, claim: int, kind: FromExecutor, *parts: Any) -> None:
        self._reports.send(kind, claim, *parts)
        self._raise_interrupt(claim)

    def _raise_interrupt(self, claim: int) -> None:
        interrupt = self._reports.interrupts.pop(claim, None)
        if interrupt is not None:
            raise interrupt_error(*interrupt)

    def unwind(self) -> None:
        for running in self._running.values():
            running.strand.unwind()
        if self._loop_strand is not None:
            self._loop_strand.unwind()
        if self._coroutines is not None:
            self._coroutines.loop.abandon()


class _Coroutines(AsyncExecutor):
    """The async side of an executor, on a loop that runs when it is told to."""

    def __init__(self, inside: _Inside, channel: _Reports, clock: Clock) -> None:
        super().__init__(channel, inside.prepare, inside.report, lambda: None)
        self.loop = VirtualLoop(clock)
        self._gone = self.loop.create_future()

    def begin(self, run: Run) -> None:
        self.loop.call_soon(self._start, run)

    def run_ready(self) -> None:
        """On a strand: claim, interrupt, and run all that can run now."""
        self.loop.call_soon(self._guarded, self._on_claims)
        with contextlib.suppress(SimulationOver):
            self.loop.run_ready()


def _ending(kind: EndKind, detail: Any) -> Mapping[str, Any]:
    """How a run ended, in the words of a history and of an `Attempt`."""
    match kind:
        case EndKind.RETURNED:
            return {"outcome": "returned", "ending": "returned"}
        case EndKind.ASKED_RETRY:
            return {"outcome": "raised", "error": type(detail).__name__, "ending": "retry"}
        case EndKind.INTERRUPTED:
            return {"outcome": "raised", "error": "TaskInterrupt", "ending": "interrupted"}
        case _:
            name = type(detail).__name__
            return {"outcome": "raised", "error": name, "ending": "raised", "said": f"{name}: {detail}"}


def executor_of(strand: Strand) -> _Inside:
    """The executor whose code this strand runs."""
    owner = strand.owner
    if isinstance(owner, _Running):
        return owner.inside
    assert isinstance(owner, _Inside)
    return owner
