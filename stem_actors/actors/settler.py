"""The settler: turns outcomes into verdicts, writes results and ends leases, many in one step."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.permits import Permits
from stem_actors.actors.reconnect import Reconnect
from stem_actors.actors.settlement_counter import SettlementCounter
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import BrokerUnavailable, StemError, StorageFull
from stem_actors.executors.errands import run_errand
from stem_actors.metrics import Tally
from stem_actors.model.delivery import Delivery
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.outcome import Ack, DeadLetter, ErrorInfo, Release
from stem_actors.model.record import Settlement, TaskRecord, running_record, settlement
from stem_actors.model.retry import Limits, decide
from stem_actors.ports import Answer, Broker, Done, RateLimiter, Refused, ResultBackend, Stale
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["Settler"]

_logger = logging.getLogger("stem.settler")

MOST_AT_ONCE = 256
"""What was executed and not yet settled runs again after a kill, so a batch is bounded."""


@dataclass(frozen=True, slots=True)
class _TryAgain:
    """The broker was away; perhaps it is back."""


_After: TypeAlias = m.AckFirst | m.FreeKey | m.MarkStarted | m.AskPermits | m.FreePlaces | m.Announce | m.ReleaseHeld

Message: TypeAlias = m.Finished | m.Errand | m.Note | _After | _TryAgain


class Settler(StemActor):
    """Tells the broker how each delivery ended.

    Owns:     nothing that lasts: what it holds unsettled, the pool hands over again to a successor.
    Receives: Finished, Note, AckFirst, FreeKey, MarkStarted, AskPermits, FreePlaces, Announce, ReleaseHeld, Errand.
    Tells:    executor pool (Settled, AckedFirst, KeyFreed, Marked, Permitted, Announced, HeldReleased, SettlerStarted,
              ErrandDone).

    While the broker is away it keeps what it has and tries again; the pool's credit bounds how much that can become. Where
    results have a server of their own they are written first, then the delivery is settled.
    """

    def __init__(
        self,
        context: ActorContext,
        broker: Broker,
        separate_results: ResultBackend | None,
        notes_to: ResultBackend | None,
        rate_limits: RateLimiter,
        holder: str,
        worker: str,
        limits: Limits,
        reconnect: Reconnect,
        vitals: Vitals,
        tally: Tally,
    ) -> None:
        super().__init__(context)
        self._broker = broker
        self._separate_results = separate_results
        self._notes_to = notes_to
        self._holder = holder
        self._worker = worker
        self._limits = limits
        self._reconnect = reconnect
        self._vitals = vitals
        self._tally = tally
        self._counter = SettlementCounter(worker, tally)
        self._permits = Permits(rate_limits, self.clock, worker, tally)
        self._chance = random.Random()
        self._unsettled: list[tuple[m.Run, Settlement]] = []
        self._acked: list[tuple[m.Run, Settlement]] = []  # acknowledged when they started: only their records are wanted
        self._after_settling: list[_After] = []

    def on_start(self) -> None:
        self.tell(m.EXECUTOR_POOL, m.SettlerStarted())

    def on_stop(self) -> None:
        self._settle_all()

    def on_receive(self, message: Message) -> None:
        match message:
            case m.Finished(runs):
                self._finished(runs)
            case m.Note(runs, progress):
                self._note(m.Note(runs, progress))
            case m.FreePlaces(places):
                piled_up = (more.places for more in self.take(m.FreePlaces, MOST_AT_ONCE))
                self._after_settling.append(m.FreePlaces([*places, *chain.from_iterable(piled_up)]))
                self._settle_all()
            case m.AckFirst() | m.FreeKey() | m.MarkStarted() | m.AskPermits() | m.Announce() | m.ReleaseHeld():
                self._after_settling.append(message)
                self._settle_all()
            case m.Errand(process, number, errand, payload):
                done = run_errand(errand, payload, self._broker, self._notes_to)
                self.tell(m.EXECUTOR_POOL, m.ErrandDone(process, number, *done))
            case _TryAgain():
                self._settle_all()
            case _:
                assert_never(message)

    def _finished(self, runs: Sequence[m.Run]) -> None:
        self._add(runs)
        for piled_up in self.take(m.Finished, MOST_AT_ONCE):
            self._add(piled_up.runs)
        if not self._reconnect.is_away:
            self._settle_all()

    def _add(self, runs: Sequence[m.Run]) -> None:
        worker, limits, chance = self._worker, self._limits, self._chance.random
        for run in runs:
            delivery, outcome, policy, started_at, seconds, is_acked = run
            verdict = decide(delivery, outcome, policy, limits, chance())
            settled = run, settlement(delivery, outcome, verdict, _facts(worker, started_at, seconds))
            (self._acked if is_acked else self._unsettled).append(settled)

    # ------------------------------------------------------------ settling

    def _settle_all(self) -> None:
        """Settle what there is; what the broker does not answer for stays, and is tried again."""
        try:
            while self._unsettled:
                batch = self._unsettled[:MOST_AT_ONCE]
                answers = self._settle([settlement for _, settlement in batch])
                del self._unsettled[: len(batch)]
                self._answered(batch, answers)
            while self._acked:
                self._record(self._acked[:MOST_AT_ONCE])
                del self._acked[:MOST_AT_ONCE]
            while self._after_settling:
                self._after(self._after_settling[0])
                del self._after_settling[0]
        except (BrokerUnavailable, StorageFull) as error:
            self.after(self._reconnect.failed(error), _TryAgain())
        else:
            self._reconnect.succeeded()

    def _record(self, batch: Sequence[tuple[m.Run, Settlement]]) -> None:
        """Write how runs ended whose deliveries the broker has forgotten already."""
        records = [each.record for _, each in batch if each.record is not None]
        if self._notes_to is not None and records:
            # Not in the dead letters, whatever the verdict: there is no delivery left to set aside.
            self._notes_to.set_many([record._replace(meta=_without_dead_letter(record.meta)) for record in records])
        self._answered(batch, [Done()] * len(batch))

    def _settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        try:
            if self._separate_results is not None:
                records = [each.record for each in settlements if each.record is not None]
                if records:
                    self._separate_results.set_many(records)
            return self._broker.settle(settlements)
        except (BrokerUnavailable, StorageFull):
            raise
        except StemError as error:
            return self._settle_by_halves(settlements, error)

    def _settle_by_halves(self, settlements: Sequence[Settlement], error: StemError) -> list[Answer]:
        """One of these is refused for its content: find it, and settle it with an error in place of its result."""
        if len(settlements) > 1:
            middle = len(settlements) // 2
            return [*self._settle(settlements[:middle]), *self._settle(settlements[middle:])]
        (only,) = settlements
        _logger.error("%s: the broker refuses a settlement: %s", self._worker, error)
        if only.record is None or only.record.payload is None:
            return [Refused(str(error))]
        record = only.record
        rejected = ErrorInfo("ResultRejected", f"the result cannot be stored: {error}")
        replacement = type(record)(
            record.id,
            TaskState.FAILED,
            record.attempt,
            record.delivery_count,
            record.replay_count,
            None,
            rejected,
            False,
            record.meta,
        )
        dead = DeadLetter("result-rejected", {"error": str(error)})
        return self._broker.settle([Settlement(only.lease, dead, only.state, replacement)])

    def _answered(self, batch: Sequence[tuple[m.Run, Settlement]], answers: Sequence[Answer]) -> None:
        self._vitals.settled_at = self.clock.monotonic()
        self._tally.observe("stem_settle_batch_size", len(batch), self._worker)
        answered = [(lease.token, answer) for (_, (lease, _, _, _)), answer in zip(batch, answers, strict=True)]
        self.tell(m.EXECUTOR_POOL, m.Settled(answered))  # first: it may fetch while we count
        stale = [settlement for (_, settlement), answer in zip(batch, answers, strict=True) if isinstance(answer, Stale)]
        for each in stale:
            self._tally.count("stem_results_stale_total", each.lease.queue, self._worker)
        self._counter.count([item for item in batch if item[1] not in stale] if stale else batch)

    # ------------------------------------------------------------ what comes after

    def _after(self, message: _After) -> None:
        match message:
            case m.AckFirst(delivery):
                self.tell(m.EXECUTOR_POOL, m.AckedFirst(delivery.lease.token, self._ack_first(delivery)))
            case m.FreeKey(lease):
                self.tell(m.EXECUTOR_POOL, m.KeyFreed(lease.token, self._broker.end_claims([lease])[0]))
            case m.MarkStarted(lease):
                self.tell(m.EXECUTOR_POOL, m.Marked(lease.token, self._broker.mark_started(lease)))
            case m.AskPermits(permits):
                self.tell(m.EXECUTOR_POOL, m.Permitted(self._permits.ask(permits)))
            case m.FreePlaces(places):
                self._permits.free(places)
            case m.Announce(deliveries):
                self.tell(m.EXECUTOR_POOL, m.Announced(self._announce(deliveries)))
            case m.ReleaseHeld():
                held = self._broker.held(self._holder)
                if held:
                    _logger.warning("%s: releasing %d deliveries of the pool's predecessor", self._worker, len(held))
                    self._broker.settle([Settlement(handout.lease, Release()) for handout in held])
                self.tell(m.EXECUTOR_POOL, m.HeldReleased())

    def _ack_first(self, delivery: Delivery) -> Answer:
        """The record says `running` from now on, also when nobody lives to write another."""
        started = running_record(delivery, {"worker": self._worker, "startedAt": round(time.time() * 1000)})
        (answer,) = self._settle([Settlement(delivery.lease, Ack(), None, None if self._notes_to is None else started)])
        return answer

    def _announce(self, deliveries: Sequence[Delivery]) -> dict[int | str, TaskRecord | None]:
        assert self._separate_results is not None, "redeliveries are announced to results with a server of their own only"
        records = [running_record(delivery, {"worker": self._worker}) for delivery in deliveries]
        found = self._separate_results.announce(records)
        return {delivery.lease.token: record for delivery, record in zip(deliveries, found, strict=True)}

    def _note(self, note: m.Note) -> None:
        """Write down that runs go on. Only information: what cannot be written now is not written."""
        if self._notes_to is None or self._reconnect.is_away:
            return
        records = []
        for run in note.runs:
            facts = _facts(self._worker, run.started_at)
            progress = note.progress.get(run.delivery.lease.token)
            if progress is not None:
                facts["progress"] = {"percent": progress[0], "data": progress[1]}
            records.append(running_record(run.delivery, facts))
        try:
            self._notes_to.set_many(records)
        except StemError as error:
            _logger.info("%s: cannot note %d running tasks: %s", self._worker, len(records), error)


def _facts(worker: str, started_at: float, seconds: float | None = None) -> dict[str, object]:
    """What this worker knows of a run, for its record."""
    if not started_at:
        return {"worker": worker}
    if seconds is None:
        return {"worker": worker, "startedAt": round(started_at * 1000)}
    return {"worker": worker, "startedAt": round(started_at * 1000), "completedAt": round((started_at + seconds) * 1000)}


def _without_dead_letter(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key != "deadLetter"}
