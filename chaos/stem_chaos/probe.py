"""The probe in a worker: `--enable-chaos` with `STEM_CHAOS_PROBE=stem_chaos.probe:instrument` puts it between actors and broker.

What a worker receives, settles, renews and reclaims goes into the history, as it was asked and as it was answered; and a worker
may die at its fault points. Everything else goes through untouched. Nodes without that setting import nothing of this.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

import psutil

from stem_actors.adapters.postgres.connection import Database as PostgresDatabase
from stem_actors.adapters.postgres.connection import Parameters, Row, Transaction
from stem_actors.adapters.redis.connection import Call, Server
from stem_actors.adapters.sqlite.connection import Database
from stem_actors.executors.frames import Handed
from stem_actors.executors.process import ExecutorProcess
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement
from stem_actors.ports import Answer, Broker, Done, Intake, Refused, Stale, Stores, Swept
from stem_actors.testing.forwarding import ForwardingBroker, ForwardingIntake
from stem_chaos.history import Phase, Recorder, Verb, run_directory
from stem_chaos.points import Points, write_last_words

__all__ = ["ProbedBroker", "ProbedIntake", "instrument"]

_REMEMBERED = 10_000
"""Ended leases whose tasks are known on: for a settlement that is repeated, and for a holder that comes too late."""


def instrument(stores: Stores, incarnation: str) -> Stores:
    """The stores of this worker process, recorded. For `stem_actors.worker`, once in a process."""
    directory = run_directory()
    recorder = Recorder(directory, incarnation)
    points = Points(directory, partial(_last_words, recorder, incarnation))
    _reach_at_hand_over(points)
    _reach_at_steps(points)
    return replace(stores, broker=ProbedBroker(stores.broker, recorder, points))


def _last_words(recorder: Recorder, incarnation: str, point: str) -> None:
    """With it end its executors."""
    pids = [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]
    write_last_words(recorder, point, pids, [incarnation])


def _reach_at_hand_over(points: Points) -> None:
    """Put the points around every hand-over of this process. It has no seam, and one would cost each worker a call per batch."""
    hand = ExecutorProcess.hand

    def probed(self: ExecutorProcess, tasks: Sequence[Handed]) -> None:
        points.reach("hand-over.before")
        hand(self, tasks)
        points.reach("hand-over.after")

    ExecutorProcess.hand = probed  # type: ignore[method-assign]  # see above


def _reach_at_steps(points: Points) -> None:
    """Let every store of this process tell when it has changed something for good: what it promises to do in one step it might
    do in two, and nobody outside would see it but by a death in between."""
    write, send, run_all = Database.write, Server.commands, Server.run_all
    run, transact = PostgresDatabase.run, PostgresDatabase.transact

    @contextmanager
    def probed_write(self: Database, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with write(self, durable) as connection:
            yield connection
        points.step()

    def probed_commands(self: Server, commands: Sequence[Sequence[Any]]) -> list[Any]:
        answers = send(self, commands)
        points.step()
        return answers

    def probed_run_all(self: Server, calls: Sequence[Call]) -> list[Any]:
        answers = run_all(self, calls)
        points.step()
        return answers

    def probed_run(self: PostgresDatabase, sql: str, parameters: Parameters | None = None) -> list[Row]:
        rows = run(self, sql, parameters)
        points.step()
        return rows

    def probed_transact(self: PostgresDatabase, work: Callable[[Transaction], Any], durable: bool = True) -> Any:
        result = transact(self, work, durable)
        points.step()
        return result

    Database.write = probed_write  # type: ignore[method-assign]  # as above
    Server.commands = probed_commands  # type: ignore[method-assign]
    Server.run_all = probed_run_all  # type: ignore[method-assign]
    PostgresDatabase.run = probed_run  # type: ignore[method-assign]
    PostgresDatabase.transact = probed_transact  # type: ignore[method-assign]


class ProbedIntake(ForwardingIntake):
    """An `Intake` whose hand-outs are recorded."""

    def __init__(self, intake: Intake, leases: _Leases, points: Points) -> None:
        super().__init__(intake)
        self._leases = leases
        self._points = points

    def receive(self, limit: int, wait: float) -> list[Handout]:
        self._points.reach("fetch.before")
        handouts = super().receive(limit, wait)
        if handouts:
            self._leases.received(handouts)
            self._points.reach("fetch.after")
        return handouts


class ProbedBroker(ForwardingBroker):
    """A `Broker` whose leases are recorded from their hand-out to their end. The rest is none of its business."""

    def __init__(self, broker: Broker, recorder: Recorder, points: Points) -> None:
        super().__init__(broker)
        self._recorder = recorder
        self._points = points
        self._leases = _Leases(recorder)

    def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
        return ProbedIntake(super().open_intake(queues, holder), self._leases, self._points)

    def held(self, holder: str) -> list[Handout]:
        handouts = super().held(holder)
        self._leases.found(handouts)
        return handouts

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        self._points.reach("settle.before")
        asked = [{**_described(each), **self._leases.fields(each.lease)} for each in settlements]
        steps = ["settle.step", *(["retry.step"] if any(isinstance(each.verdict, Retry) for each in settlements) else [])]
        with self._points.each_step(*steps):
            answers = self._ask(Verb.SETTLE, asked, partial(super().settle, settlements))
        self._leases.ended(each.lease for each in settlements)
        self._points.reach("settle.after")
        return answers

    def extend(self, leases: Sequence[Lease]) -> list[Answer]:
        self._points.reach("renew.before")
        asked = [self._leases.fields(lease) for lease in leases]
        answers = self._ask(Verb.RENEW, asked, partial(super().extend, leases))
        self._leases.ended(lease for lease, answer in zip(leases, answers, strict=True) if isinstance(answer, Stale))
        self._points.reach("renew.after")
        return answers

    def sweep(self) -> Swept:
        self._points.reach("sweep.before")
        swept = super().sweep()
        found = {"promoted": swept.promoted, "reclaimed": swept.reclaimed, "poisoned": swept.poisoned}
        if any(found.values()):
            self._recorder.happened(Verb.RECLAIM, **found)
        self._points.reach("sweep.after")
        return swept

    def _ask(self, verb: Verb, asked: Sequence[Mapping[str, Any]], ask: Callable[[], list[Answer]]) -> list[Answer]:
        """Ask the broker, and write down before and after, for each, what was asked and what came of it."""
        recorder = self._recorder
        calls = [(recorder.next_call(), fields) for fields in asked]
        recorder.append(*(recorder.line(verb, Phase.INVOKE, call, **fields) for call, fields in calls))
        try:
            answers = ask()
        except BaseException as error:  # whatever it is: the broker may have done it, or parts of it
            text = f"{type(error).__name__}: {error}"
            recorder.append(*(recorder.line(verb, Phase.INFO, call, **fields, error=text) for call, fields in calls))
            raise
        lines = []
        for (call, fields), answer in zip(calls, answers, strict=True):
            match answer:
                case Done():
                    lines.append(recorder.line(verb, Phase.OK, call, **fields))
                case Stale():
                    lines.append(recorder.line(verb, Phase.FAIL, call, **fields, answer="stale"))
                case Refused(reason):
                    lines.append(recorder.line(verb, Phase.FAIL, call, **fields, answer=f"refused: {reason}"))
        recorder.append(*lines)
        return answers


def _described(settlement: Settlement) -> dict[str, Any]:
    """What a settlement says beside its lease."""
    said = _told(settlement.verdict)
    if settlement.state is not None:
        said["deaths"] = list(settlement.state.deaths)
    if settlement.record is not None:
        said["state"] = settlement.record.state.value
        said["task_id"] = settlement.record.id
    return said


def _told(verdict: Verdict) -> dict[str, Any]:
    match verdict:
        case Ack():
            return {"verdict": "ack"}
        case Release():
            return {"verdict": "release"}
        case Defer(delay):
            return {"verdict": "defer", "delay": delay}
        case Retry(delay):
            return {"verdict": "retry", "delay": delay}
        case DeadLetter(reason):
            return {"verdict": "dead-letter", "reason": reason}
        case _:
            assert_never(verdict)


class _Leases:
    """What each lease of this worker is for: whoever settles or renews names only the lease. Any thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()
        self._held: dict[int | str, Mapping[str, Any]] = {}
        self._ended: dict[int | str, Mapping[str, Any]] = {}  # the oldest first
        self._found: set[int | str] = set()
        self._fetches = 0  # that brought something

    def received(self, handouts: Iterable[Handout]) -> None:
        """Record what a fetch brought, but for what another thread has found in the moment since."""
        with self._lock:
            self._fetches += 1
            self._add([each for each in handouts if each.lease.token not in self._found], fetch=self._fetches)

    def found(self, handouts: Iterable[Handout]) -> None:
        """Record those hand-outs whose answer was lost on its way."""
        with self._lock:
            lost = [each for each in handouts if each.lease.token not in self._held and each.lease.token not in self._ended]
            self._found.update(each.lease.token for each in lost)
            self._add(lost, recovered=True)

    def ended(self, leases: Iterable[Lease]) -> None:
        """The broker has answered: these are not held any more."""
        with self._lock:
            for lease in leases:
                fields = self._held.pop(lease.token, None)
                if fields is not None:
                    self._ended[lease.token] = fields
            while len(self._ended) > _REMEMBERED:
                forgotten = next(iter(self._ended))
                del self._ended[forgotten]
                self._found.discard(forgotten)

    def fields(self, lease: Lease) -> Mapping[str, Any]:
        """What an operation on a lease says of it and its task."""
        with self._lock:
            return self._held.get(lease.token) or self._ended.get(lease.token) or _of_lease(lease)

    def _add(self, handouts: Sequence[Handout], **more: Any) -> None:
        lines = []
        for handout in handouts:
            lease, state = handout.lease, handout.state
            fields: dict[str, Any] = {"task_id": handout.id, **_of_lease(lease)}
            counters: dict[str, Any] = {}
            if state is not None:  # else its bytes cannot be read
                fields |= {"attempt": state.attempt, "delivery_count": state.delivery_count}
                counters = {"deaths": list(state.deaths), "lapses": state.lapses}
            self._held[lease.token] = fields
            call = self._recorder.next_call()
            deliver = {**fields, **counters, "visibility": lease.visibility, **more}
            lines.append(self._recorder.line(Verb.DELIVER, Phase.OK, call, **deliver))
        self._recorder.append(*lines)


def _of_lease(lease: Lease) -> dict[str, Any]:
    return {"incarnation": lease.holder, "lease": str(lease.token), "queue": lease.queue}
