"""The executor pool: owns the executors and everything in flight, hands out work and credit, watches limits and deaths.

The heart of a worker. A flight is born when the consumer delivers it and ends when the broker has answered for its settlement;
in between it waits here, runs in an executor, or has its outcome with the settler. What an executor does with its pipes is
`executors.process`'s business, what may go inside one `slots.py`'s, and the books are `flights.py`'s.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.catalogue import Catalogue, TaskFacts, limits_of
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.slots import Slot
from stem_actors.executors.frames import EndKind, FromExecutor, Handed, InterruptKind
from stem_actors.executors.prediction import RunTimes
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.sessions import kill_session
from stem_actors.metrics import Tally
from stem_actors.model.delivery import Delivery
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import (
    Died,
    ErrorInfo,
    Failed,
    Interrupted,
    Lapsed,
    Outcome,
    Recorded,
    Rejected,
    RetryAsked,
    Revoked,
    Succeeded,
    Unregistered,
)
from stem_actors.model.record import TaskRecord
from stem_actors.model.retry import DEFAULT_BACKOFF
from stem_actors.ports import Answer, Done, Revocation, Stale
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["ExecutorPool", "GetReport", "Launcher", "PoolReport", "PoolSettings"]

_TICK = 0.05
_TAKE_BACK_AFTER = 0.1
_NOTE_AFTER = 0.5
_NUDGES = 5
_HOARDING_AFTER = 1.0
_REAP_PATIENCE = 40  # × 5 ms for the forkserver to tell how an executor ended
_MOST_BACKOFF = 5.0
_RENEW_BELOW = 0.7  # of the visibility timeout left; with rounds each sixth of it, two renewals may fail before a lease lapses


class Launcher(Protocol):
    """Starts executors in the worker's main thread; answers `ExecutorUp` or `ExecutorFailed` to the pool."""

    def launch(self, slot: int) -> int:
        """Ask for a process. Returns at once, with the ticket that the answer will carry: above 0, never the same."""
        ...

    def reap_all(self, timeout: float) -> bool:
        """Kill every executor ever started and wait until they are dead; False when one is not in time."""
        ...

    def hung(self) -> None:
        """The main thread has not answered a request for an executor: the process is beyond help."""
        ...

    def executor_ready(self, broker: str | None) -> None:
        """An executor has said hello; `broker` is the URL its application names, if it names one."""
        ...

    def unusable(self, code: int, text: str) -> None:
        """The application cannot be loaded: the worker has to end with `code`."""
        ...

    def drained(self) -> None:
        """Nothing is in flight any more, after a `Shutdown`."""
        ...


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the pool needs to know. Durations in seconds."""

    worker: str
    namespace: str
    concurrency: int
    async_slots: int
    prefetch: int
    visibility_timeout: float
    max_payload_bytes: int
    drain_timeout: float
    soft_grace_period: float
    force_shutdown_after: float
    announces_redeliveries: bool = False
    start_deadline: float = 60.0


@dataclass(frozen=True, slots=True)
class PoolReport:
    """The pool's state, for heartbeats and readiness."""

    inflight: int
    waiting: int
    running: int
    credit: int
    free_slots: int
    ready_executors: int
    executors: Sequence[Mapping[str, Any]]
    states: Mapping[str, int]
    queues: Mapping[str, int]
    active: Sequence[Mapping[str, Any]]
    is_draining: bool
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class GetReport:
    """Tell the heartbeat a `PoolReport`; asked, it is the reply as well."""


@dataclass(frozen=True, slots=True)
class _Readable:
    slot: Slot
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class _Writable:
    slot: Slot
    process: ExecutorProcess


@dataclass(frozen=True, slots=True)
class _Exited:
    slot: Slot
    process: ExecutorProcess
    looks: int = 0


@dataclass(frozen=True, slots=True)
class _Relaunch:
    slot: Slot


@dataclass(frozen=True, slots=True)
class _Tick:
    """Time to look at limits, at heads that run long, at what waits too long."""


Message: TypeAlias = (
    m.Deliver
    | m.Held
    | m.Settled
    | m.Marked
    | m.Announced
    | m.Renewed
    | m.LeasesLost
    | m.RenewalRound
    | m.Revoke
    | m.Shutdown
    | m.ExecutorUp
    | m.ExecutorFailed
    | m.ConsumerStarted
    | m.FetchingStopped
    | m.SettlerStarted
    | m.HeldReleased
    | GetReport
    | _Readable
    | _Writable
    | _Exited
    | _Relaunch
    | _Tick
)


class ExecutorPool(StemActor):
    """Runs what the consumer delivers.

    Owns:     the executors, and every flight from its delivery to the broker's answer.
    Receives: Deliver, Held, ConsumerStarted, FetchingStopped (consumer); Settled, Marked, Announced, SettlerStarted, HeldReleased
              (settler); RenewalRound, Renewed, LeasesLost (lease renewer); Revoke (revoke listener); ExecutorUp, ExecutorFailed
              (launcher); Shutdown; GetReport.
    Tells:    settler (Finished, Note, MarkStarted, Announce, ReleaseHeld), consumer (Credit, Recover), lease renewer (InFlight,
              RenewNow).
    Restart:  its predecessor's executors are killed before it takes anything, then all that this incarnation still holds is
              released, queued behind the outcomes which the settler already has.
    """

    mailbox_bound = 4096

    def __init__(
        self,
        context: ActorContext,
        settings: PoolSettings,
        launcher: Launcher,
        tally: Tally,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._settings = settings
        self._launcher = launcher
        self._tally = tally
        self._now = wall_clock
        self._flights = Flights()
        self._waiting: dict[bool, deque[Flight]] = {False: deque(), True: deque()}
        self._suspects: deque[Flight] = deque()
        self._suspect: Flight | None = None
        self._stalled: list[Flight] = []
        self._slots = [Slot(index, is_async=False, width=1) for index in range(settings.concurrency)]
        self._catalogue: Catalogue | None = None
        self._uncatalogued: list[m.Job] = []
        self._run_times = RunTimes()
        self._revoked: dict[str, Revocation] = {}
        self._credit = 0
        self._is_open = False
        self._is_hoarding = False
        self._is_ticking = False
        self._shutdown: m.ShutdownMode | None = None
        self._has_let_go = False
        self._is_fed = True
        self._ended = Counter[str]()

    # ------------------------------------------------------------ life

    def on_start(self) -> None:
        if not self._launcher.reap_all(timeout=5.0):
            raise RuntimeError("an executor of the pool's predecessor does not die")
        for slot in self._slots:
            self._launch(slot)
        self.tell(m.SETTLER, m.ReleaseHeld())
        self.tell(m.REVOKE_LISTENER, m.Resend())

    def on_stop(self) -> None:
        self._launcher.reap_all(timeout=5.0)

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._launcher.reap_all(timeout=5.0)

    def on_receive(self, message: Message) -> Any:
        match message:
            case _Readable(slot, process):
                self._read(slot, process)
            case m.Settled(answers):
                self._settled(answers)
            case m.Deliver(jobs, recovered):
                self._deliver(jobs, recovered)
            case m.Held(tokens):
                self._look_up(tokens)
            case _Tick():
                self._tick()
            case m.RenewalRound():
                self._report_leases()
            case m.Renewed(deadlines):
                self._renewed(deadlines)
            case m.LeasesLost(tokens):
                self._lost(tokens)
            case m.Marked(token, answer):
                self._marked(token, answer)
            case m.Announced(records):
                self._announced(records)
            case m.Revoke(revocations):
                self._revoke(revocations)
            case m.ExecutorUp(slot, ticket, process):
                self._executor_up(self._slots[slot], ticket, process)
            case m.ExecutorFailed(slot, ticket, _):
                self._executor_failed(self._slots[slot], ticket)
            case _Exited(slot, process, looks):
                self._exited(slot, process, looks)
            case _Writable(slot, process):
                self._write(slot, process)
            case _Relaunch(slot):
                self._relaunch(slot)
            case m.ConsumerStarted():
                self._credit = 0
                self._is_fed = self._shutdown is None  # without credit a consumer fetches nothing
                self._grant()
                self._check_drained()
            case m.FetchingStopped():
                self._is_fed = False
                self._check_drained()
            case m.SettlerStarted():
                self._tell_again()
            case m.HeldReleased():
                self._is_open = True
                self._grant()
                self._check_drained()
            case m.Shutdown(mode):
                self._shut_down(mode)
            case GetReport():
                report = self._report()
                self.tell(m.HEARTBEAT, report)
                return report
            case _:
                assert_never(message)
        return None

    # ------------------------------------------------------------ deliveries in

    def _deliver(self, jobs: Sequence[m.Job], recovered: bool) -> None:
        if not recovered:
            self._credit -= len(jobs)
        if self._catalogue is None and self._shutdown is None:
            self._uncatalogued += jobs  # until the first executor has said which tasks there are
            return
        now = self.clock.monotonic()
        judged: list[tuple[Flight, Outcome]] = []
        announced: list[Delivery] = []
        for job in jobs:
            if job.delivery.lease.token in self._flights:
                continue
            flight = self._flights.add(job.delivery, now)
            outcome = job.outcome or self._judge(flight)
            if outcome is not None:
                judged.append((flight, outcome))
            elif self._settings.announces_redeliveries and job.delivery.state.delivery_count > 1:
                flight.stage = Stage.ANNOUNCING
                announced.append(job.delivery)
            else:
                self._line_up(flight)
        self._finish(judged)
        self._announce(announced)
        self._dispatch()
        self._keep_ticking()

    def _look_up(self, tokens: Sequence[int | str]) -> None:
        uncatalogued = {job.delivery.lease.token for job in self._uncatalogued}
        unknown = [token for token in tokens if token not in self._flights and token not in uncatalogued]
        if unknown:
            self.tell(m.CONSUMER, m.Recover(unknown))

    def _line_up(self, flight: Flight) -> None:
        flight.stage = Stage.WAITING
        if flight.is_suspect:
            self._suspects.append(flight)
        else:
            self._waiting[flight.is_async].append(flight)

    def _announce(self, deliveries: Sequence[Delivery]) -> None:
        """Where results have a server of their own: what an earlier holder still writes there must be refused."""
        if deliveries:
            self.tell(m.SETTLER, m.Announce(deliveries))

    def _announced(self, records: Mapping[int | str, TaskRecord | None]) -> None:
        ended: list[tuple[Flight, Outcome]] = []
        for token, record in records.items():
            flight = self._flights.get(token)
            if flight is None or flight.stage is not Stage.ANNOUNCING:
                continue
            if record is None:
                self._line_up(flight)
            else:
                is_dead = record.state is TaskState.FAILED
                ended.append((flight, Recorded(record.meta.get("deadLetter", "max-retries-exhausted") if is_dead else None)))
        self._finish(ended)
        self._dispatch()

    def _judge(self, flight: Flight) -> Outcome | None:
        """What ends a delivery before it runs; else note its task's facts."""
        delivery = flight.delivery
        if self._shutdown is not None:
            return Interrupted()
        facts = self._facts(delivery)
        if facts is None:
            return Unregistered()
        if delivery.envelope.id in self._revoked:
            return self._revoked_outcome(delivery)
        flight.is_async = facts.is_async
        flight.soft_limit, flight.hard_limit = limits_of(delivery, facts)
        flight.ignore_result = bool(delivery.envelope.meta.get("stem.ignoreResult", facts.ignore_result))
        flight.is_exclusive = facts.exclusive
        flight.expected = self._run_times.expected(delivery.envelope.name)
        if delivery.lease.visibility < self._settings.visibility_timeout:
            self.tell(m.LEASE_RENEWER, m.RenewNow())
        return None

    def _facts(self, delivery: Delivery) -> TaskFacts | None:
        return None if self._catalogue is None else self._catalogue.find(delivery.envelope.name)

    # ------------------------------------------------------------ work out

    def _dispatch(self) -> None:
        """Give executors what waits, as far as they take it, evenly."""
        if self._shutdown is None:
            self._start_suspect()
        for is_async, waiting in self._waiting.items():
            if not waiting:
                continue
            now = self.clock.monotonic()
            open_slots = [slot for slot in self._slots if slot.is_async == is_async and slot.is_open(now)]
            open_slots.sort(key=lambda slot: slot.inside)
            for position, slot in enumerate(open_slots):
                if not waiting:
                    break
                self._fill(slot, waiting, math.ceil(len(waiting) / (len(open_slots) - position)), now)

    def _fill(self, slot: Slot, waiting: deque[Flight], share: int, now: float) -> None:
        tasks: list[Handed] = []
        while waiting and len(tasks) < share:
            flight = waiting[0]
            if flight.deadline <= now:  # nothing starts past its lease's end; a renewal brings it back
                self._stalled.append(waiting.popleft())
                continue
            if not slot.takes(flight, len(tasks)):
                break
            waiting.popleft()
            tasks.append(self._board(slot, flight))
            if flight.runs_alone:
                slot.reserved_for = flight
                break
        if tasks:
            self._hand(slot, tasks, now)

    def _board(self, slot: Slot, flight: Flight) -> Handed:
        """Note that a flight goes into a slot; what its executor needs to know."""
        flight.stage = Stage.INSIDE
        flight.slot = slot.index
        if flight.expected is not None:
            slot.expected += flight.expected
        delivery = flight.delivery
        return Handed(
            flight.claim,
            delivery.body,
            delivery.state.attempt,
            flight.deadline,
            flight.hard_limit,
            flight.soft_limit is not None or flight.hard_limit is not None,
            flight.ignore_result,
            self._settings.max_payload_bytes,
        )

    def _hand(self, slot: Slot, tasks: Sequence[Handed], now: float) -> None:
        process = slot.process
        assert process is not None, "only an open slot is filled"
        if not process.handed:
            slot.active_at = now
        process.hand(tasks)
        if process.wants_to_write:
            self.watch(process.sock.fileno(), _Writable(slot, process), write=True)

    def _write(self, slot: Slot, process: ExecutorProcess) -> None:
        if slot.process is not process:
            return
        try:
            process.flush()
        except OSError:
            process.kill()  # its pidfd will tell
            return
        if not process.wants_to_write:
            self.unwatch(process.sock.fileno(), write=True)

    def _take_back(self, slot: Slot) -> list[Flight]:
        """Get back what the slot's executor has not started, to the head of what waits."""
        if slot.process is None:
            return []
        taken = [flight for claim in slot.process.take_back() if (flight := self._flights.by_claim(claim)) is not None]
        self._return(slot, taken)
        return taken

    def _return(self, slot: Slot, flights: Sequence[Flight]) -> None:
        for flight in reversed(flights):
            self._leave(slot, flight)
            flight.stage = Stage.WAITING
            self._waiting[flight.is_async].appendleft(flight)

    def _leave(self, slot: Slot, flight: Flight) -> None:
        if flight.expected is not None:
            slot.expected = max(0.0, slot.expected - flight.expected)
        if slot.reserved_for is flight:
            slot.reserved_for = None
        flight.slot = -1

    # ------------------------------------------------------------ suspects

    def _start_suspect(self) -> None:
        """One at a time: mark it at the broker, then give it an executor of its own."""
        if self._suspect is None and self._suspects:
            self._suspect = self._suspects.popleft()
            self._suspect.stage = Stage.MARKING
            self.tell(m.SETTLER, m.MarkStarted(self._suspect.delivery.lease))

    def _marked(self, token: int | str, answer: Answer) -> None:
        suspect = self._suspect
        if suspect is None or suspect.token != token:
            return
        if not isinstance(answer, Done):
            self._lost([token])
        elif suspect.stage is Stage.MARKING:
            suspect.is_marked = True
            suspect.stage = Stage.WAITING
            self._waiting[suspect.is_async].appendleft(suspect)
        self._dispatch()

    # ------------------------------------------------------------ reports of executors

    def _read(self, slot: Slot, process: ExecutorProcess) -> None:
        if slot.process is not process:
            return
        try:
            self._take_frames(slot, process.receive())
        except EOFError:
            self.unwatch(process.sock.fileno())
            process.kill()  # closed or garbled: of no use any more; its pidfd tells when it is dead
        self._dispatch()

    def _take_frames(self, slot: Slot, frames: Any) -> None:
        ended: list[tuple[Flight, Outcome, float, float]] = []
        try:
            for frame in frames:
                match frame[0]:
                    case FromExecutor.ENDED:
                        self._ended_frame(slot, frame, ended)
                    case FromExecutor.STARTED:
                        self._started(frame[1])
                    case FromExecutor.PROGRESS:
                        self._progress(frame[1], frame[2], frame[3])
                    case FromExecutor.EXTEND:
                        self.tell(m.LEASE_RENEWER, m.RenewNow())
                    case FromExecutor.READY:
                        self._ready(slot, frame[1])
                    case FromExecutor.UNUSABLE:
                        self._launcher.unusable(frame[1], frame[2])
        finally:
            if ended:
                slot.failures = 0
                slot.active_at = self.clock.monotonic()
                self._finish_runs(ended)

    def _ended_frame(self, slot: Slot, frame: list[Any], ended: list[tuple[Flight, Outcome, float, float]]) -> None:
        _, claim, kind, detail, started_at, seconds = frame
        flight = self._flights.by_claim(claim)
        if flight is None or flight.stage is not Stage.INSIDE:
            return
        self._leave(slot, flight)
        if kind == EndKind.NOT_STARTED and self._shutdown is None:
            flight.stage = Stage.WAITING
            self._stalled.append(flight)
            return
        if kind == EndKind.RETURNED or kind == EndKind.RAISED:
            self._run_times.learn(flight.delivery.envelope.name, seconds)
        ended.append((flight, self._outcome(flight, kind, detail), started_at, seconds))

    def _outcome(self, flight: Flight, kind: int, detail: Any) -> Outcome:
        if kind == EndKind.RETURNED:
            return Succeeded(detail)
        if flight.interrupt_outcome is not None and kind in (EndKind.RAISED, EndKind.INTERRUPTED, EndKind.ASKED_RETRY):
            return flight.interrupt_outcome
        match kind:
            case EndKind.RAISED:
                outcome: Outcome = Failed(ErrorInfo(detail[0], detail[1], detail[2] or None), detail[3])
            case EndKind.ASKED_RETRY:
                outcome = RetryAsked(ErrorInfo("RetryRequested", detail[1], detail[2] or None), detail[3], detail[4])
            case EndKind.UNREGISTERED:
                outcome = Unregistered()
            case EndKind.UNREADABLE:
                outcome = Rejected(detail[0], ErrorInfo("Malformed", detail[1]))
            case _:
                outcome = Interrupted()
        if isinstance(outcome, Failed | RetryAsked) and flight.delivery.envelope.id in self._revoked:
            return self._revoked_outcome(flight.delivery)  # revoked without terminate: it may end, but does not run again
        return outcome

    def _started(self, claim: int) -> None:
        flight = self._flights.by_claim(claim)
        if flight is not None:
            flight.started_at = self.clock.monotonic()

    def _progress(self, claim: int, percent: float | None, data: Any) -> None:
        flight = self._flights.by_claim(claim)
        if flight is not None and percent is not None:
            flight.progress = percent, data
            flight.is_noted = False

    def _ready(self, slot: Slot, wire: Mapping[str, Any]) -> None:
        slot.is_ready = True
        if self._catalogue is None:
            self._catalogue = Catalogue(wire)
            self._launcher.executor_ready(wire.get("broker"))
            self._assign_kinds()
            jobs, self._uncatalogued = self._uncatalogued, []
            self._deliver(jobs, recovered=True)
        self._grant()

    def _assign_kinds(self) -> None:
        """Executors run sync or async tasks, never both: as many of each kind as there is work for."""
        assert self._catalogue is not None
        if not self._catalogue.has_async:
            return
        if self._catalogue.has_sync:
            first = len(self._slots)
            more = [Slot(first + n, is_async=True, width=self._settings.async_slots) for n in range(self._settings.concurrency)]
            self._slots += more
            for slot in more:
                self._launch(slot)
        else:
            for slot in self._slots:
                slot.is_async, slot.width = True, self._settings.async_slots

    # ------------------------------------------------------------ outcomes out

    def _finish_runs(self, ended: Sequence[tuple[Flight, Outcome, float, float]]) -> None:
        runs = [self._end(flight, outcome, started_at, seconds) for flight, outcome, started_at, seconds in ended]
        self._tell_finished([run for run in runs if run is not None])

    def _finish(self, judged: Sequence[tuple[Flight, Outcome]]) -> None:
        self._finish_runs([(flight, outcome, 0.0, 0.0) for flight, outcome in judged])

    def _end(self, flight: Flight, outcome: Outcome, started_at: float, seconds: float) -> m.Run | None:
        if self._suspect is flight:
            self._suspect = None
        if flight.is_lost:
            self._flights.remove(flight.token)
            return None
        facts = self._facts(flight.delivery)
        flight.stage = Stage.ENDED
        flight.run = m.Run(flight.delivery, outcome, DEFAULT_BACKOFF if facts is None else facts.policy, started_at, seconds)
        return flight.run

    def _tell_finished(self, runs: Sequence[m.Run]) -> None:
        if runs:
            self.tell(m.SETTLER, m.Finished(runs))

    def _tell_again(self) -> None:
        """A new settler: whatever has no answer yet. Of two settlements the second finds nothing to do."""
        self._tell_finished([flight.run for flight in self._flights if flight.run is not None])
        if self._suspect is not None and self._suspect.stage is Stage.MARKING:
            self.tell(m.SETTLER, m.MarkStarted(self._suspect.delivery.lease))
        self._announce([flight.delivery for flight in self._flights if flight.stage is Stage.ANNOUNCING])
        if not self._is_open:
            self.tell(m.SETTLER, m.ReleaseHeld())

    def _settled(self, answers: Sequence[tuple[int | str, Answer]]) -> None:
        for token, answer in answers:
            flight = self._flights.remove(token)
            if flight is None or flight.run is None:
                continue
            if isinstance(answer, Stale):
                continue
            self._ended["succeeded" if isinstance(flight.run.outcome, Succeeded) else "other"] += 1
        self._grant()
        self._check_drained()

    def _grant(self) -> None:
        """Let the consumer fetch what this worker can hold beyond what it holds."""
        if not self._is_open or self._shutdown is not None or self._catalogue is None:
            return
        wanted = self._flights.wanted(self._open_width(), self._settings.prefetch, self._run_times.overall, self._is_hoarding)
        room = wanted - len(self._flights) - self._credit
        # In batches while there is plenty; at once when little is held.
        if room > 0 and (room * 8 >= wanted or len(self._flights) * 2 < wanted):
            self._credit += room
            self.tell(m.CONSUMER, m.Credit(room))

    def _open_width(self) -> int:
        """Runs that fit in at once. Async slots count as they come into use: there are a thousand, and seldom as much work."""
        ready = [slot for slot in self._slots if slot.is_ready]
        in_use = sum(slot.inside for slot in ready if slot.is_async)
        return sum(min(slot.width, 64 + 2 * in_use) if slot.is_async else 1 for slot in ready)

    # ------------------------------------------------------------ time

    def _keep_ticking(self) -> None:
        if not self._is_ticking and (len(self._flights) or self._slots_are_starting()):
            self._is_ticking = True
            self.after(_TICK, _Tick())

    def _slots_are_starting(self) -> bool:
        return any(slot.ticket and not slot.is_ready for slot in self._slots)

    def _tick(self) -> None:
        self._is_ticking = False
        now = self.clock.monotonic()
        self._rescue_waiting_inside(now)
        noted: list[Flight] = []
        for flight in self._flights:
            if flight.stage is Stage.INSIDE:
                self._watch_run(flight, now, noted)
        self._note(noted)
        self._hand_back_hoard(now)
        for slot in self._slots:
            if slot.ticket and not slot.is_ready and now - slot.asked_at > self._settings.start_deadline:
                self._start_overdue(slot)
        self._dispatch()
        self._keep_ticking()

    def _start_overdue(self, slot: Slot) -> None:
        if slot.process is None:
            self._launcher.hung()
        else:
            slot.process.kill()

    def _rescue_waiting_inside(self, now: float) -> None:
        """Take back what waits behind a head that runs longer than was expected."""
        for slot in self._slots:
            if slot.is_async or slot.inside < 2 or now - slot.active_at < _TAKE_BACK_AFTER:
                continue
            head = self._flights.by_claim(next(iter(slot.process.handed))) if slot.process else None
            self._take_back(slot)
            if head is not None:
                self._run_times.suspect_longer(head.delivery.envelope.name, now - slot.active_at)

    def _watch_run(self, flight: Flight, now: float, noted: list[Flight]) -> None:
        slot = self._slots[flight.slot]
        process = slot.process
        if process is None:
            return
        if flight.kill_at is not None and now >= flight.kill_at:
            self._kill(slot, {flight.claim: flight.interrupt_outcome or Interrupted()})
            return
        if flight.is_exclusive and flight.interrupt is None and flight.deadline - now < flight.delivery.lease.visibility / 6:
            self._stop_exclusive(flight, slot)
            return
        if flight.interrupt is not None and flight.nudges_left > 0:
            flight.nudges_left -= 1
            process.nudge()
        started = flight.started_at
        if started is not None:
            if flight.hard_limit is not None and now - started >= flight.hard_limit:
                self._overran(flight, slot)
            elif flight.soft_limit is not None and flight.interrupt is None and now - started >= flight.soft_limit:
                self._interrupt(flight, InterruptKind.SOFT_LIMIT)
        is_head = slot.is_async or next(iter(process.handed), None) == flight.claim
        running_for = now - max(slot.active_at, flight.received_at)
        if is_head and not flight.is_noted and running_for > _NOTE_AFTER:
            noted.append(flight)

    def _note(self, noted: Sequence[Flight]) -> None:
        """Let the settler write down that these run; short runs never get here and cost no write."""
        if not noted:
            return
        runs: list[m.Run] = []
        progress: dict[int | str, tuple[float, Any]] = {}
        for flight in noted:
            flight.is_noted = True
            slot = self._slots[flight.slot]
            age = self.clock.monotonic() - max(slot.active_at, flight.received_at)
            runs.append(m.Run(flight.delivery, Interrupted(), DEFAULT_BACKOFF, self._now() - age))
            if flight.progress is not None:
                progress[flight.token] = flight.progress
        self.tell(m.SETTLER, m.Note(runs, progress))

    def _hand_back_hoard(self, now: float) -> None:
        """Hand back what will not start within a second: another worker may be idle."""
        sync = [slot for slot in self._slots if not slot.is_async]
        waiting = self._waiting[False]
        mean = self._run_times.overall or 0.0
        is_stuffed = bool(sync) and all(slot.inside and now - slot.active_at > _HOARDING_AFTER / 2 for slot in sync)
        was_hoarding, self._is_hoarding = self._is_hoarding, is_stuffed or mean > _HOARDING_AFTER
        if was_hoarding and not self._is_hoarding:
            self._grant()
        if not self._is_hoarding or not waiting:
            return
        late = [flight for flight in waiting if now - flight.received_at > _HOARDING_AFTER and not flight.is_marked]
        for flight in late:
            waiting.remove(flight)
        self._finish([(flight, Interrupted()) for flight in late])

    # ------------------------------------------------------------ interrupts and limits

    def _interrupt(
        self, flight: Flight, kind: InterruptKind, outcome: Outcome | None = None, kill_after: float | None = None
    ) -> None:
        """Stop one run. `outcome` is what a run counts as that ends by it; killed after `kill_after` seconds otherwise."""
        process = self._slots[flight.slot].process
        if process is None:
            return
        flight.interrupt, flight.interrupt_outcome, flight.nudges_left = kind, outcome, _NUDGES
        if kill_after is not None:
            flight.kill_at = self.clock.monotonic() + kill_after
        process.interrupt(flight.claim, kind)

    def _overran(self, flight: Flight, slot: Slot) -> None:
        error = ErrorInfo("HardTimeLimitExceeded", f"the task ran longer than its hard time limit of {flight.hard_limit:g} s")
        flight.hard_limit = None  # once
        if slot.is_async:
            self._interrupt(flight, InterruptKind.REVOKED, Failed(error), kill_after=1.0)
        else:
            self._kill(slot, {flight.claim: Failed(error)})

    def _stop_exclusive(self, flight: Flight, slot: Slot) -> None:
        """Its lease is about to run out unrenewed, and it must never run beside another run of itself."""
        if slot.is_async:
            self._interrupt(flight, InterruptKind.RELEASED, Interrupted(), kill_after=flight.delivery.lease.visibility / 12)
        else:
            self._kill(slot, {flight.claim: Interrupted()})

    def _kill(self, slot: Slot, verdicts: Mapping[int, Outcome]) -> None:
        """Kill a slot's executor; what we killed is judged by `verdicts`, what ran beside it is released."""
        if slot.process is None:
            return
        slot.spares = True
        slot.verdicts.update(verdicts)
        slot.process.kill()

    def _revoke(self, revocations: Sequence[Revocation]) -> None:
        for revocation in revocations:
            self._revoked[revocation.task_id] = revocation
        ids = {revocation.task_id for revocation in revocations}
        hit = [flight for flight in self._flights if flight.delivery.envelope.id in ids]
        for slot_index in {
            flight.slot for flight in hit if flight.stage is Stage.INSIDE and not self._slots[flight.slot].is_async
        }:
            self._take_back(self._slots[slot_index])
        ended: list[tuple[Flight, Outcome]] = []
        for flight in hit:
            revocation = self._revoked[flight.delivery.envelope.id]
            if flight.stage in (Stage.WAITING, Stage.ANNOUNCING):
                self._forget_waiting(flight)
                ended.append((flight, self._revoked_outcome(flight.delivery)))
            elif flight.stage is Stage.INSIDE and revocation.terminate:
                outcome = self._revoked_outcome(flight.delivery)
                self._interrupt(flight, InterruptKind.REVOKED, outcome, self._settings.force_shutdown_after)
        self._finish(ended)
        self._dispatch()

    def _forget_waiting(self, flight: Flight) -> None:
        for waiting in (*self._waiting.values(), self._suspects, self._stalled):
            if flight in waiting:
                waiting.remove(flight)

    def _revoked_outcome(self, delivery: Delivery) -> Revoked:
        revocation = self._revoked[delivery.envelope.id]
        return Revoked(revocation.reason, revocation.requested_by)

    # ------------------------------------------------------------ leases

    def _report_leases(self) -> None:
        """Which leases to renew now: those with a third of their time gone. All that wait count, those inside executors too."""
        now = self.clock.monotonic()
        due, pace = [], self._settings.visibility_timeout / 6
        for flight in self._flights:
            lease = flight.delivery.lease
            pace = min(pace, lease.visibility / 6)
            if flight.deadline - now < lease.visibility * _RENEW_BELOW and not flight.is_lost:
                due.append(lease)
        self.tell(m.LEASE_RENEWER, m.InFlight(due, max(pace, 0.05)))

    def _renewed(self, deadlines: Mapping[int | str, float]) -> None:
        for token, deadline in deadlines.items():
            flight = self._flights.get(token)
            if flight is not None:
                flight.deadline = deadline
        now = self.clock.monotonic()
        for flight in [flight for flight in self._stalled if flight.deadline > now]:
            self._stalled.remove(flight)
            self._waiting[flight.is_async].appendleft(flight)
        self._dispatch()

    def _lost(self, tokens: Sequence[int | str]) -> None:
        """Another may hold these: stop them, drop what comes of them."""
        for token in tokens:
            flight = self._flights.get(token)
            if flight is None or flight.stage is Stage.ENDED or flight.is_lost:
                continue
            self._tally.count("stem_leases_lost_total", flight.delivery.lease.queue, self._settings.worker)
            flight.is_lost = True
            if flight.stage is Stage.INSIDE and not self._slots[flight.slot].is_async:
                self._take_back(self._slots[flight.slot])
            if flight.stage is Stage.INSIDE:
                self._interrupt(flight, InterruptKind.REVOKED, Interrupted(), self._settings.force_shutdown_after)
            else:
                self._forget_waiting(flight)
                self._end(flight, Interrupted(), 0.0, 0.0)
        self._grant()
        self._check_drained()

    # ------------------------------------------------------------ executors come and go

    def _launch(self, slot: Slot) -> None:
        slot.asked_at = self.clock.monotonic()
        slot.ticket = self._launcher.launch(slot.index)
        self._keep_ticking()

    def _executor_up(self, slot: Slot, ticket: int, process: ExecutorProcess) -> None:
        if slot.ticket != ticket or self._shutdown is m.ShutdownMode.HARD:
            process.kill()
            process.close()
            return
        slot.process = process
        self.watch(process.pidfd, _Exited(slot, process))
        self.watch(process.sock.fileno(), _Readable(slot, process))
        self._keep_ticking()

    def _executor_failed(self, slot: Slot, ticket: int) -> None:
        if slot.ticket == ticket:
            self._launch_later(slot)

    def _launch_later(self, slot: Slot) -> None:
        """Dying before the first hello, or idle, backs off; dying under a task is its task's fault and does not."""
        delay = 0.0 if slot.failures == 0 else min(_MOST_BACKOFF, 0.1 * 2.0 ** min(slot.failures, 10))
        slot.ticket = 0
        self.after(delay, _Relaunch(slot))

    def _relaunch(self, slot: Slot) -> None:
        if slot.ticket == 0 and self._shutdown is None:
            self._launch(slot)

    def _exited(self, slot: Slot, process: ExecutorProcess, looks: int) -> None:
        """An executor is dead. What it reported counts; what it had not claimed goes to others; then blame."""
        if slot.process is not process:
            return
        if looks == 0:
            self.unwatch(process.pidfd)
            self.unwatch(process.sock.fileno())
            self._take_frames(slot, process.drain())
        if process.process.exitcode is None and looks < _REAP_PATIENCE:
            self.after(0.005, _Exited(slot, process, looks + 1))
            return
        self._take_back(slot)
        is_own_fault = not process.handed and not slot.spares and not slot.is_leaving
        self._blame(slot, process)
        if is_own_fault:
            slot.failures += 1
        process.close()
        kill_session(process.pid, self._now())
        slot.vacate()
        if self._shutdown is None:
            self._launch_later(slot)
        self._dispatch()
        self._keep_ticking()
        self._check_drained()

    def _blame(self, slot: Slot, process: ExecutorProcess) -> None:
        claimed = [flight for claim in process.handed if (flight := self._flights.by_claim(claim)) is not None]
        process.handed.clear()
        cause = process.cause_of_death()
        if not slot.is_leaving:
            self._tally.count(
                "stem_executor_deaths_total", self._settings.worker, "ours" if slot.spares else cause.split(" (")[0]
            )
        guilty_is_known = len(claimed) == 1 and not cause.startswith("unknown")
        ended: list[tuple[Flight, Outcome]] = []
        for flight in claimed:
            self._leave(slot, flight)
            if flight.claim in slot.verdicts:
                outcome = slot.verdicts[flight.claim]
            elif slot.spares:
                outcome = Interrupted()
            elif guilty_is_known or flight.is_marked:
                outcome = Died(cause)
            else:
                outcome = Lapsed(cause)
            self._tally.count("stem_redeliveries_total", flight.delivery.lease.queue, type(outcome).__name__.lower())
            ended.append((flight, outcome))
        self._finish(ended)

    # ------------------------------------------------------------ leaving

    def _shut_down(self, mode: m.ShutdownMode) -> None:
        if self._shutdown is not None and mode <= self._shutdown:
            return
        self._shutdown = mode
        for slot in self._slots:
            if not slot.is_async:
                self._take_back(slot)
        unstarted = [flight for flight in self._flights if flight.stage not in (Stage.INSIDE, Stage.ENDED)]
        for waiting in (*self._waiting.values(), self._suspects, self._stalled):
            waiting.clear()
        self._finish([(flight, Interrupted()) for flight in unstarted])
        jobs, self._uncatalogued = self._uncatalogued, []
        self._deliver(jobs, recovered=True)
        running = [flight for flight in self._flights if flight.stage is Stage.INSIDE]
        match mode:
            case m.ShutdownMode.WARM:
                self.after(self._settings.drain_timeout, m.Shutdown(m.ShutdownMode.SOFT))
            case m.ShutdownMode.SOFT:
                for flight in running:
                    self._interrupt(flight, InterruptKind.RELEASED, Interrupted())
                self.after(self._settings.soft_grace_period, m.Shutdown(m.ShutdownMode.HARD))
            case m.ShutdownMode.HARD:
                for slot in self._slots:
                    self._kill(slot, {})
        self._check_drained()

    def _check_drained(self) -> None:
        if self._shutdown is None or self._is_fed or len(self._flights):
            return
        if not self._has_let_go:
            self._has_let_go, self._is_open = True, False
            self.tell(m.SETTLER, m.ReleaseHeld())  # what a lost reply left with us, and nobody knows of
        if not self._is_open:
            return
        for slot in self._slots:
            if slot.process is not None and not slot.is_leaving:
                slot.is_leaving = True
                slot.process.request_stop()
        self._launcher.drained()

    # ------------------------------------------------------------ report

    def _report(self) -> PoolReport:
        now = self.clock.monotonic()
        ready = [slot for slot in self._slots if slot.is_ready]
        running = [flight for flight in self._flights if flight.stage is Stage.INSIDE]
        return PoolReport(
            inflight=len(self._flights),
            waiting=sum(map(len, self._waiting.values())) + len(self._suspects) + len(self._stalled),
            running=len(running),
            credit=self._credit,
            free_slots=sum(1 for slot in ready if slot.is_open(now) and slot.inside == 0),
            ready_executors=len(ready),
            executors=[
                {"pid": slot.process.pid, "state": slot.state.value, "inside": slot.inside}
                for slot in self._slots
                if slot.process is not None
            ],
            states=Counter(slot.state.value for slot in self._slots),
            queues=Counter(flight.delivery.lease.queue for flight in self._flights),
            active=[
                {
                    "id": flight.delivery.envelope.id,
                    "task": flight.delivery.envelope.name,
                    "queue": flight.delivery.lease.queue,
                    "attempt": flight.delivery.state.attempt,
                    "runtimeMs": round(1000 * (now - max(self._slots[flight.slot].active_at, flight.received_at))),
                }
                for flight in itertools.islice(running, 50)
            ],
            is_draining=self._shutdown is not None,
            succeeded=self._ended["succeeded"],
            failed=self._ended["other"],
        )
