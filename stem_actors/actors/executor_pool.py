"""The executor pool: owns everything in flight, hands out work and credit, and judges what becomes of it.

The heart of a worker. A flight is born when the consumer delivers it and ends when the broker has answered for its settlement; in
between it waits in line (`waiting_line.py`), is given to an executor (`dispatcher.py`; `crew.py`, watched by `run_watch.py`), or
has its outcome with the settler (`endings.py`). Others may end it before its time (`recalls.py`), its executor's death among them
(`executor_ends.py`). The books of all that are `flights.py`. The pool is the one thread in which all of these act, and says when.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol, TypeAlias, assert_never

from stem_actors.actors import crew
from stem_actors.actors import messages as m
from stem_actors.actors.catalogue import Catalogue, limits_of
from stem_actors.actors.clearance import Clearance
from stem_actors.actors.credit import Credit
from stem_actors.actors.dispatcher import Dispatcher
from stem_actors.actors.endings import Endings
from stem_actors.actors.executor_ends import ExecutorEnds
from stem_actors.actors.executor_watch import ExecutorWatch
from stem_actors.actors.flights import Flight, Flights, Stage
from stem_actors.actors.hoard import Hoard
from stem_actors.actors.outcomes import reported
from stem_actors.actors.pool_report import GetReport, PoolReport, describe
from stem_actors.actors.recalls import Recalls
from stem_actors.actors.run_watch import RunWatch
from stem_actors.actors.slots import Slot
from stem_actors.actors.vitals import Vitals
from stem_actors.actors.waiting_line import WaitingLine
from stem_actors.executors.frames import ENDED, RETURNED, EndKind, Frame, FromExecutor, InterruptKind
from stem_actors.executors.prediction import RunTimes
from stem_actors.executors.process import ExecutorProcess
from stem_actors.metrics import Tally
from stem_actors.model.concurrency import Place
from stem_actors.model.delivery import Delivery
from stem_actors.model.outcome import Failed, Interrupted, Outcome, RetryAsked, Unregistered
from stem_actors.model.retry import DEFAULT_BACKOFF
from stem_actors.ports import Answer, Done
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["ExecutorPool", "PoolHost", "PoolSettings"]

_TAKE_BACK_AFTER = 0.1
_INSIDE, _ENDED = Stage.INSIDE, Stage.ENDED  # looked at for every task, see `flights.py`
_RUNS_AGAIN = (Failed, RetryAsked)
_RENEW_BELOW = 0.7  # of the visibility timeout left; with rounds each sixth of it, two renewals may fail before a lease lapses


class PoolHost(crew.Launcher, Protocol):
    """The process around a pool."""

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
    """What the pool needs to know. Durations in seconds, sizes in bytes; None: no limit."""

    worker: str
    namespace: str
    async_slots: int
    prefetch_multiplier: int
    visibility_timeout: float
    max_payload_bytes: int
    drain_timeout: float
    soft_grace_period: float
    force_shutdown_after: float
    announces_redeliveries: bool = False
    threads: int = 1
    max_tasks_per_executor: int | None = None
    max_memory_per_executor: int | None = None
    enforces_hard_limits: bool = True
    tick: float = 0.05  # between two looks at what runs


@dataclass(frozen=True, slots=True)
class _Tick:
    """Time to look at limits, at heads that run long, at what waits too long."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Time to look at the executors themselves."""


Message: TypeAlias = (
    m.Deliver
    | m.Held
    | m.Settled
    | m.Marked
    | m.Permitted
    | m.Announced
    | m.AckedFirst
    | m.KeyFreed
    | m.Renewed
    | m.LeasesLost
    | m.PlacesLost
    | m.RenewalRound
    | m.Revoke
    | m.RevocationsKnown
    | m.PausesChanged
    | m.ConcurrencyChanged
    | m.AskLoad
    | m.Shutdown
    | m.ExecutorUp
    | m.ExecutorFailed
    | m.ConsumerStarted
    | m.FetchingStopped
    | m.SettlerStarted
    | m.HeldReleased
    | m.ErrandDone
    | GetReport
    | crew.Readable
    | crew.Writable
    | crew.Exited
    | crew.Silenced
    | crew.Relaunch
    | _Tick
    | _Look
)


class ExecutorPool(StemActor):
    """Runs what the consumer delivers.

    Owns:     the executors, and every flight from its delivery to the broker's answer.
    Receives: Deliver, Held, ConsumerStarted, FetchingStopped (consumer); Settled, Marked, Permitted, Announced, SettlerStarted,
              AckedFirst, KeyFreed, HeldReleased, ErrandDone (settler); RenewalRound, Renewed, LeasesLost, PlacesLost (lease
              renewer); Revoke, RevocationsKnown, PausesChanged (revoke listener); ConcurrencyChanged (revoke listener or
              autoscaler); AskLoad (autoscaler); ExecutorUp, ExecutorFailed (launcher); Shutdown; GetReport.
    Tells:    settler (Finished, Note, AckFirst, FreeKey, MarkStarted, AskPermits, FreePlaces, Announce, ReleaseHeld, Errand),
              consumer (Credit, Recover), lease renewer (InFlight, RenewNow), autoscaler (Load).
    Restart:  its predecessor's executors are killed before it takes anything, then all that this incarnation still holds is
              released, queued behind the outcomes which the settler already has.
    """

    mailbox_bound = 4096

    def __init__(
        self,
        context: ActorContext,
        settings: PoolSettings,
        host: PoolHost,
        vitals: Vitals,
        tally: Tally,
        wall_clock: Callable[[], float] = time.time,
        server_now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._settings = settings
        self._host = host
        self._vitals = vitals
        self._now = wall_clock
        self._flights = Flights()
        self._line = WaitingLine()
        self._clearance = Clearance(self._flights, self._line, settings.announces_redeliveries, partial(self.tell, m.SETTLER))
        self._crew = crew.Crew(
            self, host, vitals.concurrency, settings.async_slots, settings.threads, settings.max_tasks_per_executor
        )
        self._endings = Endings(self._flights, self._line, self._clearance, partial(self.tell, m.SETTLER))
        self._dispatcher = Dispatcher(
            self._flights,
            self._line,
            self._clearance,
            self._crew,
            self._endings,
            self.clock,
            server_now,
            settings.max_payload_bytes,
        )
        self._ends = ExecutorEnds(self._flights, self._crew, self._dispatcher, self._endings, tally, settings.worker)
        self._runs = RunWatch(self._flights, self._crew)
        self._recalls = Recalls(
            self._flights,
            self._line,
            self._dispatcher,
            self._endings,
            self._runs,
            server_now,
            settings.force_shutdown_after,
            tally,
            settings.worker,
        )
        self._executors = ExecutorWatch(self._crew, settings.visibility_timeout, settings.max_memory_per_executor)
        self._run_times = RunTimes()
        self._catalogue: Catalogue | None = None
        self._uncatalogued: list[m.Deliver] = []
        self._knows_revocations = False  # until then it takes nothing: what is revoked must not start
        self._credit = Credit()
        self._hoard = Hoard(self._line, self._crew, self._run_times, self._credit)
        self._is_open = False  # whether what a predecessor held has been released
        self._is_fed = True  # whether a consumer may still deliver
        self._is_ticking = False
        self._shutdown: m.ShutdownMode | None = None
        self._has_let_go = False

    # ------------------------------------------------------------ life

    def on_start(self) -> None:
        self._crew.start()
        self._keep_ticking()
        self.after(self._executors.interval, _Look())
        self.tell(m.SETTLER, m.ReleaseHeld())
        self.tell(m.REVOKE_LISTENER, m.Resend())

    def on_stop(self) -> None:
        self._crew.reap()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._crew.reap()

    def on_receive(self, message: Message) -> Any:
        match message:
            case crew.Readable(slot, process):
                self._take_frames(slot, self._crew.read(slot, process))
                self._dispatcher.dispatch()
            case m.Settled(answers):
                self._endings.settled(answers)
                self._went_on()
            case m.Deliver(deliveries, judged, recovered):
                self._deliver(deliveries, judged, recovered)
            case m.Held(tokens):
                self._look_up(tokens)
            case _Tick():
                self._tick()
            case _Look():
                self._look_at_executors()
            case m.RenewalRound():
                self._report_leases()
            case m.Renewed(deadlines):
                self._renewed(deadlines)
            case m.LeasesLost(tokens):
                self._lost(tokens)
            case m.PlacesLost(holders):
                self._recalls.lose_places(holders, self.clock.monotonic())
                self._dispatcher.dispatch()
            case m.Marked(token, answer):
                if not self._clearance.marked(token, answer):
                    self._lost([token])
                self._dispatcher.dispatch()
            case m.Permitted(outcomes):
                self._endings.finish(self._clearance.permitted(outcomes))
                self._dispatcher.dispatch()
            case m.Announced(records):
                self._endings.finish(self._clearance.announced(records))
                self._dispatcher.dispatch()
            case m.AckedFirst(token, answer):
                self._acked_first(token, answer)
            case m.KeyFreed(token, answer):
                if not self._clearance.key_freed(token, answer):
                    self._lost([token])
                self._dispatcher.dispatch()
            case m.Revoke(revocations):
                self._recalls.revoke(revocations, self.clock.monotonic())
                self._dispatcher.dispatch()
            case m.RevocationsKnown():
                self._knows_revocations = True
                self._grant()
            case m.PausesChanged():
                self._recalls.pause(self._vitals.paused)
                self._dispatcher.dispatch()
            case m.ConcurrencyChanged():
                self._resize()
            case m.AskLoad():
                self._tell_load()
            case m.ExecutorUp(slot, ticket, process):
                self._executor_up(slot, ticket, process)
            case m.ExecutorFailed(slot, ticket, _):
                self._crew.failed(self._crew.slots[slot], ticket)
            case crew.Exited():
                self._exited(message)
            case crew.Silenced(slot, process):
                self._crew.silenced(slot, process)
            case crew.Writable(slot, process):
                self._crew.write(slot, process)
            case crew.Relaunch(slot):
                self._crew.relaunch(slot)
                self._keep_ticking()
            case m.ConsumerStarted():
                self._consumer_started()
            case m.FetchingStopped():
                self._is_fed = False
                self._check_drained()
            case m.SettlerStarted():
                self._tell_again()
            case m.HeldReleased():
                self._is_open = True
                self._went_on()
            case m.ErrandDone(process, number, error, answer):
                self._crew.reply(process, number, error, answer)
            case m.Shutdown(mode):
                self._shut_down(mode)
            case GetReport():
                return self._report()
            case _:
                assert_never(message)
        return None

    # ------------------------------------------------------------ deliveries in

    def _deliver(
        self, deliveries: Sequence[Delivery], judged: Sequence[tuple[Delivery, Outcome]], recovered: bool = False
    ) -> None:
        now = self.clock.monotonic()
        if not recovered:
            self._credit.used(len(deliveries) + len(judged), now)
        if self._catalogue is None and self._shutdown is None:
            self._uncatalogued.append(m.Deliver(deliveries, judged))  # until the first executor has said which tasks there are
            return
        flights, line, announces = self._flights, self._line, self._settings.announces_redeliveries
        ended = [(flights.add(each, now), outcome) for each, outcome in judged if each.lease.token not in flights]
        uncleared: list[Flight] = []
        for delivery in deliveries:
            if delivery.lease.token in flights:
                continue
            flight = flights.add(delivery, now)
            outcome = self._judge(flight)
            if outcome is not None:
                ended.append((flight, outcome))
            elif flight.limits or (announces and delivery.state.delivery_count > 1):
                uncleared.append(flight)
            else:
                line.add(flight)
        self._endings.finish(ended)
        self._clearance.admit(uncleared)
        self._dispatcher.dispatch()
        self._keep_ticking()

    def _deliver_uncatalogued(self) -> None:
        waiting, self._uncatalogued = self._uncatalogued, []
        for told in waiting:
            self._deliver(told.deliveries, told.judged, recovered=True)

    def _judge(self, flight: Flight) -> Outcome | None:
        """What ends a delivery before it runs; else note its task's facts."""
        if self._shutdown is not None or self._catalogue is None:
            return Interrupted()
        facts = self._catalogue.find(flight.name)
        if facts is None:
            return Unregistered()
        delivery = flight.delivery
        if self._recalls.revoked and (revoked := self._recalls.revocation_of(flight)) is not None:
            return revoked
        if self._vitals.paused and delivery.lease.queue in self._vitals.paused:
            return Interrupted()
        flight.policy = facts.policy
        flight.is_async = facts.is_async
        flight.soft_limit, flight.hard_limit = limits_of(delivery, facts)
        if not self._settings.enforces_hard_limits:
            flight.hard_limit = None
        flight.ignore_result = bool(delivery.envelope.meta.get("stem.ignoreResult", facts.ignore_result))
        flight.is_exclusive = facts.exclusive
        if facts.tells_first:
            flight.tells_first, flight.acks_early, flight.frees_key = True, not facts.acks_late, facts.acks_late
        flight.limits = facts.limits
        flight.expected = self._run_times.expected(flight.name)
        if delivery.lease.visibility < self._settings.visibility_timeout:
            self.tell(m.LEASE_RENEWER, m.RenewNow())
        return None

    def _look_up(self, tokens: Sequence[int | str]) -> None:
        """The consumer holds these: ask for those that never got here."""
        uncatalogued = set[int | str]()
        for told in self._uncatalogued:
            uncatalogued.update(each.lease.token for each in told.deliveries)
            uncatalogued.update(each.lease.token for each, _ in told.judged)
        unknown = [token for token in tokens if token not in self._flights and token not in uncatalogued]
        if unknown:
            self.tell(m.CONSUMER, m.Recover(unknown))

    # ------------------------------------------------------------ work out

    def _acked_first(self, token: int | str, answer: Answer) -> None:
        flight = self._flights.get(token)
        if flight is None or flight.stage is not Stage.ACKING:
            return
        if not isinstance(answer, Done):
            self._lost([token])
            return
        flight.is_acked, flight.tells_first, flight.deadline = True, False, math.inf  # there is no lease any more
        if (revoked := self._recalls.revocation_of(flight)) is not None:
            self._endings.finish([(flight, revoked)])
        elif self._shutdown is None:
            self._line.put_first([flight])
            self._dispatcher.dispatch()
        else:
            self._endings.let_go([flight])

    # ------------------------------------------------------------ reports of executors

    def _take_frames(self, slot: Slot, frames: Iterable[Frame]) -> None:
        ended: list[m.Run] = []
        for frame in frames:
            if frame[0] == ENDED:
                self._run_ended(slot, frame, ended)
                continue
            match frame[0]:
                case FromExecutor.STARTED:
                    self._run_started(frame[1])
                case FromExecutor.PROGRESS:
                    self._run_progressed(frame[1], frame[2], frame[3])
                case FromExecutor.EXTEND:
                    self.tell(m.LEASE_RENEWER, m.RenewNow())
                case FromExecutor.ERRAND if slot.process is not None:
                    self.tell(m.SETTLER, m.Errand(slot.process, *frame[1:]))
                case FromExecutor.READY:
                    self._executor_ready(slot, frame[1])
                case FromExecutor.UNUSABLE:
                    self._host.unusable(frame[1], frame[2])
        if ended:
            slot.failures = 0
            slot.active_at = self.clock.monotonic()
            slot.runs += len(ended)
            self._endings.tell(ended)
        if slot.most_runs is not None and slot.runs >= slot.most_runs:
            self._recycle(slot, "max-tasks")
        if slot.is_leaving or not slot.is_wanted:
            self._crew.let_leave(slot)

    def _run_ended(self, slot: Slot, frame: Frame, ended: list[m.Run]) -> None:
        _, claim, kind, detail, started_at, seconds = frame
        flight = self._flights.by_claim(claim)
        if flight is None or flight.stage is not _INSIDE:
            return
        slot.unload(flight)
        if kind != RETURNED and kind == EndKind.NOT_STARTED and self._shutdown is None:
            self._line.stall(flight)
            return
        if kind == RETURNED or kind == EndKind.RAISED:
            self._run_times.learn(flight.name, seconds)
        outcome = reported(flight, kind, detail)
        if isinstance(outcome, _RUNS_AGAIN):  # revoked without terminate, it may end, but does not run again
            outcome = self._recalls.revocation_of(flight) or outcome
        run = self._endings.end(flight, outcome, started_at, seconds)
        if run is not None:
            ended.append(run)

    def _run_started(self, claim: int) -> None:
        flight = self._flights.by_claim(claim)
        if flight is not None:
            flight.started_at = self.clock.monotonic()

    def _run_progressed(self, claim: int, percent: float | None, data: Any) -> None:
        flight = self._flights.by_claim(claim)
        if flight is not None and percent is not None:
            flight.progress = percent, data
            flight.is_noted = False

    def _executor_up(self, slot: int, ticket: int, process: ExecutorProcess) -> None:
        self._crew.up(self._crew.slots[slot], ticket, process, is_wanted=self._shutdown is not m.ShutdownMode.HARD)
        self._keep_ticking()

    def _executor_ready(self, slot: Slot, wire: Mapping[str, Any]) -> None:
        slot.is_ready = True
        if self._catalogue is None:
            self._catalogue = Catalogue(wire)
            self._host.executor_ready(wire.get("broker"))
            self._crew.take_up(self._catalogue)
            self._deliver_uncatalogued()
        self._grant()

    def _exited(self, exited: crew.Exited) -> None:
        """An executor is dead. What it reported counts; what it had not claimed goes to others; then blame."""
        slot, process = exited.slot, exited.process
        if slot.process is not process:
            self._crew.bury_late(process, self._now())
            return
        self._take_frames(slot, self._crew.last_words(exited))
        if not self._crew.knows_cause(exited):
            return
        self._ends.bury(slot, process, self._now())
        self._dispatcher.dispatch()
        self._keep_ticking()
        self._check_drained()

    # ------------------------------------------------------------ executors stopped, worn out, beyond a signal

    def _look_at_executors(self) -> None:
        found = self._executors.look(self.clock.monotonic())
        for slot in found.stopped:
            self._dispatcher.take_back(slot)
        for slot in found.heavy:
            self._recycle(slot, "memory")
        for slot in found.unkillable:
            self._ends.replace_unkillable(slot)
        self._recalls.revoked.prune()
        if found.stopped or found.unkillable:
            self._dispatcher.dispatch()
            self._keep_ticking()
            self._check_drained()
        self.after(self._executors.interval, _Look())

    def _recycle(self, slot: Slot, reason: str) -> None:
        if self._shutdown is None:  # then all leave
            self._ends.recycle(slot, reason)

    # ------------------------------------------------------------ outcomes out

    def _tell_again(self) -> None:
        """A new settler."""
        self._endings.tell_again()
        self._clearance.tell_again()
        if not self._is_open:
            self.tell(m.SETTLER, m.ReleaseHeld())

    def _went_on(self) -> None:
        """Less is in flight, or what is may be known better."""
        self._grant()
        self._check_drained()

    # ------------------------------------------------------------ credit

    def _grant(self) -> None:
        """Let the consumer fetch what this worker can hold beyond what it holds."""
        if not (self._is_open and self._knows_revocations) or self._shutdown is not None or self._catalogue is None:
            return
        granted = self._credit.grant(len(self._flights), self._wanted(), self.clock.monotonic())
        if granted:
            self.tell(m.CONSUMER, m.Credit(granted))

    def _wanted(self) -> int:
        return self._flights.wanted(self._crew.width, self._prefetch, self._run_times.overall, self._hoard.is_growing)

    @property
    def _prefetch(self) -> int:
        return self._vitals.concurrency * self._settings.prefetch_multiplier

    def _consumer_started(self) -> None:
        self._credit.lapse()
        self._is_fed = self._shutdown is None  # without credit a consumer fetches nothing
        self._went_on()

    # ------------------------------------------------------------ time

    def _keep_ticking(self) -> None:
        if not self._is_ticking and (len(self._flights) or self._crew.is_starting or self._credit.is_withheld):
            self._is_ticking = True
            self.after(self._settings.tick, _Tick())

    def _tick(self) -> None:
        self._is_ticking = False
        now = self.clock.monotonic()
        self._rescue_waiting_inside(now)
        self._note(self._runs.look(now), now)
        self._hand_back_hoard(now)
        self._crew.check_starts(now)
        self._grant()
        self._dispatcher.dispatch()
        self._keep_ticking()

    def _rescue_waiting_inside(self, now: float) -> None:
        """Take back what waits behind a head that runs longer than was expected."""
        for slot in self._crew.slots:
            if slot.is_shared or slot.inside < 2 or now - slot.active_at < _TAKE_BACK_AFTER:
                continue
            head = self._flights.by_claim(next(iter(slot.process.handed))) if slot.process else None
            self._dispatcher.take_back(slot)
            if head is not None:
                self._run_times.suspect_longer(head.delivery.envelope.name, now - slot.active_at)

    def _note(self, noted: Sequence[Flight], now: float) -> None:
        """Let the settler write down that these run; short runs never get here and cost no write."""
        if noted:
            ages = [self._crew.slots[flight.slot].running_for(flight, now) for flight in noted]
            runs = [
                m.Run(flight.delivery, Interrupted(), DEFAULT_BACKOFF, self._now() - age)
                for flight, age in zip(noted, ages, strict=True)
            ]
            progress = {flight.token: flight.progress for flight in noted if flight.progress is not None}
            self.tell(m.SETTLER, m.Note(runs, progress))

    def _hand_back_hoard(self, now: float) -> None:
        late = self._hoard.look(now)
        if late and self._credit.is_idle(now):
            self._withdraw(self._credit.withhold(now))
        self._endings.let_go(late)

    def _withdraw(self, credit: int) -> None:
        if credit:
            self.tell(m.CONSUMER, m.Credit(-credit))

    # ------------------------------------------------------------ pauses, concurrency

    def _resize(self) -> None:
        """Have more executors or fewer; no run is interrupted for it."""
        if self._shutdown is not None:
            return
        for slot in self._crew.resize(self._vitals.concurrency):
            self._ends.scale_down(slot)
        self._withdraw(self._credit.withdraw(len(self._flights) + self._credit.outstanding - self._wanted()))
        self._grant()
        self._dispatcher.dispatch()
        self._keep_ticking()

    def _tell_load(self) -> None:
        if self._shutdown is None:
            self.tell(m.AUTOSCALER, m.Load(len(self._flights)))

    # ------------------------------------------------------------ leases

    def _report_leases(self) -> None:
        """Which leases to renew now: those with a third of their time gone. All that wait count, those inside executors too."""
        now = self.clock.monotonic()
        due, pace = [], self._settings.visibility_timeout / 6
        places: list[Place] = []
        for flight in self._flights:
            if flight.places and flight.stage is not _ENDED:
                places += flight.places
            if flight.is_acked or flight.stage is Stage.ACKING:
                continue
            lease = flight.delivery.lease
            pace = min(pace, lease.visibility / 6)
            if flight.deadline - now < lease.visibility * _RENEW_BELOW and not flight.is_lost:
                due.append(lease)
        self.tell(m.LEASE_RENEWER, m.InFlight(due, max(pace, 0.05), places))

    def _renewed(self, deadlines: Mapping[int | str, float]) -> None:
        for token, deadline in deadlines.items():
            flight = self._flights.get(token)
            if flight is not None:
                flight.deadline = deadline
        self._line.revive(self.clock.monotonic())
        self._dispatcher.dispatch()

    def _lost(self, tokens: Sequence[int | str]) -> None:
        self._recalls.lose(tokens, self.clock.monotonic())
        self._went_on()

    # ------------------------------------------------------------ leaving

    def _shut_down(self, mode: m.ShutdownMode) -> None:
        if self._shutdown is not None and mode <= self._shutdown:
            return
        self._shutdown = mode
        self._crew.close()
        self._dispatcher.close()
        self._recalls.release_unstarted()
        self._deliver_uncatalogued()
        match mode:
            case m.ShutdownMode.WARM:
                self.after(self._settings.drain_timeout, m.Shutdown(m.ShutdownMode.SOFT))
            case m.ShutdownMode.SOFT:
                now = self.clock.monotonic()
                for flight in self._flights:
                    if flight.stage is Stage.INSIDE:
                        self._runs.interrupt(flight, InterruptKind.RELEASED, now, Interrupted())
                self.after(self._settings.soft_grace_period, m.Shutdown(m.ShutdownMode.HARD))
            case m.ShutdownMode.HARD:
                for slot in self._crew.slots:
                    self._crew.kill(slot, {})
        self._check_drained()

    def _check_drained(self) -> None:
        if self._shutdown is None or self._is_fed or len(self._flights):
            return
        if not self._has_let_go:
            self._has_let_go, self._is_open = True, False
            self.tell(m.SETTLER, m.ReleaseHeld())  # what a lost reply left with us, and nobody knows of
        if self._is_open:
            self._crew.dismiss()
            self._host.drained()

    # ------------------------------------------------------------ report

    def _report(self) -> PoolReport:
        now, is_draining = self.clock.monotonic(), self._shutdown is not None
        unkillable = len(self._crew.unkillable)
        report = describe(
            self._flights,
            self._crew.slots,
            now,
            len(self._line),
            self._credit.outstanding,
            is_draining,
            self._endings.counts,
            unkillable,
            self._prefetch,
        )
        self.tell(m.HEARTBEAT, report)
        return report
