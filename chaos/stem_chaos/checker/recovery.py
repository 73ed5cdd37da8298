"""Prompt recovery: what a death interrupted goes on soon. Promise P4.

Two bounds, both counted in time in which no other fault was on:

- An executor is killed. Its worker must tell the broker so (settle the run's delivery) within two seconds; it takes
  milliseconds, but the machine may be busy. How soon the task then *starts* depends on what else waits, so that is told and not
  judged.
- A worker is killed. Each delivery that it held must be handed out again one visibility timeout and a second later. What a
  worker renewed last it did before it died, so the timeout counts from the fault's end at the latest. Two seconds more are
  allowed for the rounds of sweeps, and one for each thousand leases, as many as a sweep takes. Where no other worker was left,
  the time that a new one needs to come up and to be trusted with others' leases is no calm time either.

Late is not broken where other work had to come first. A delivery that came back stands at the head of its priority, so it was
held up only where, after its time, new work of the same queue and priority was handed out, by a worker that no fault had hit;
or where nothing at all happened for five seconds.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise

from stem_chaos.checker.faults import Calm, Faults, Window, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.holders import deliveries_of
from stem_chaos.checker.lives import FINAL_STATES, Call, Life, Run, read_lives, what_is_missing
from stem_chaos.history import History, Operation, Verb

__all__ = ["PROMISE", "check_recovery"]

PROMISE = (
    "An executor's death was told to the broker at once; "
    "what a dead worker held was handed out again after a visibility timeout and a second."
)
_KILLS = frozenset({"kill-executor", "kill-worker", "kill-host", "point"})  # a killed node's workers go on for a while
_HARMLESS = frozenset({"crash-point", "replace"})  # unless they say whom they hit
_NOTICE = 2.0
_SWEEP = 1.0
_MARGIN = 2.0
_AT_ONCE = 1000
_START = 3.0
_IDLE = 5.0
_LAST_WORDS = 0.5  # what was written down so long after a kill was on its way before


@dataclass(slots=True)
class _Worker:
    """An incarnation, as it wrote itself down."""

    pid: int
    last_words: float = 0.0
    held: list[tuple[Life, Operation]] = field(default_factory=list)


def check_recovery(history: History) -> Finding:
    return _Recovery(history).finding()


class _Recovery:
    def __init__(self, history: History) -> None:
        self._history = history
        self._lives = read_lives(history)
        self._faults = read_faults(history)
        self._ended = history.operations[-1].at if history.operations else 0.0
        self._executors = {operation.pid for operation in history.of(Verb.START)}
        self._workers = self._read_workers()
        self._new_work: dict[tuple[str, object], list[Operation]] = defaultdict(list)
        self._activity: list[float] = []
        for operation in history.of(Verb.DELIVER, Verb.START, Verb.END, Verb.SETTLE):
            self._activity.append(operation.at)
            if operation.verb is Verb.DELIVER and operation.delivery_count == 1:
                self._new_work[self._line_of(operation)].append(operation)
        self._disturbing = [window for window in self._faults.windows if self._disturbs(window)]
        self._disturbances = Faults(self._disturbing)
        self._recovery = history.facts.visibility_timeout / 3 + _START
        self._calm = Calm(self._disturbing, self._recovery)
        self._restarts: list[float] = []
        self._figures: dict[str, float] = {"executor_deaths": 0, "worker_deaths": 0, "handed_out_again": 0}

    def finding(self) -> Finding:
        missing = what_is_missing(self._history)
        found = [] if missing else [*self._executor_deaths(), *self._worker_deaths()]
        if self._restarts:
            self._figures["median_executor_restart_seconds"] = statistics.median(self._restarts)
        figures = {name: round(figure, 3) for name, figure in self._figures.items()}
        return conclude("recovery", PROMISE, found, figures, missing)

    # ------------------------------------------------------------ executors

    def _executor_deaths(self) -> Iterator[Violation]:
        killed: dict[int, list[Window]] = defaultdict(list)
        for window in self._faults.windows:
            if _kills(window) and self._hits_executors_only(window):
                for pid in window.pids:
                    killed[pid].append(window)
        for life in self._lives.values():
            for position, run in enumerate(life.runs):
                if run.end is None and run.start.pid in killed:
                    after = (window for window in killed[run.start.pid] if window.end >= run.began)
                    for window in islice(after, 1):
                        self._figures["executor_deaths"] += 1
                        self._restarted(life, position, window)
                        yield from self._noticed(life, run, window)

    def _restarted(self, life: Life, position: int, window: Window) -> None:
        after = life.runs[position + 1 : position + 2]
        self._restarts += [run.began - window.begin for run in after if not self._disturbances.any(window.begin, run.began)]

    def _noticed(self, life: Life, run: Run, window: Window) -> Iterator[Violation]:
        deliveries = deliveries_of(life, run)
        if len({each.incarnation for each in deliveries}) != 1:
            return  # nobody knows whose executor it was
        delivery = deliveries[-1]
        told = next((call for call in life.settlements if _is_of(call, delivery) and call.ended >= run.began), None)
        at = min(self._ended, told.began if told is not None else self._ended)
        worker = self._workers[str(delivery.incarnation)]
        holders = (worker.pid, str(delivery.incarnation))
        is_silent = told is None and worker.last_words < window.end + _NOTICE
        if is_silent or self._disturbances.hit(holders, run.began, at):
            return  # it was held up, or is no more itself
        waited = self._calm.between(window.end, at)
        self._worst("worst_executor_notice_seconds", at - window.begin)
        if waited > _NOTICE:
            what = f"was told {waited:.1f} s later" if told is not None else "was not told"
            text = f"its executor {run.start.pid} was killed ({window.name}), and the broker {what}"
            yield Violation(text, life.task_id, at)

    # ------------------------------------------------------------ workers

    def _worker_deaths(self) -> Iterator[Violation]:
        everyone = self._history.facts.nodes * self._history.facts.workers
        for window in self._faults.windows:
            if not _kills(window) or self._hits_executors_only(window):
                continue
            dead = {
                name: worker
                for name, worker in self._workers.items()
                if (name in window.incarnations or worker.pid in window.pids)
                and worker.last_words <= window.end + _LAST_WORDS
                and any(delivery.at <= window.end for _, delivery in worker.held)
            }
            is_alone = everyone <= max(1, len(dead))
            calm = self._calm if is_alone else self._calm_beside(window)
            for name, worker in dead.items():
                self._figures["worker_deaths"] += 1
                for life, delivery in worker.held:
                    yield from self._came_back(life, delivery, name, window, calm, len(worker.held))

    def _calm_beside(self, window: Window) -> Calm:
        since = window.begin - self._recovery
        return Calm((each for each in self._disturbing if each is not window and each.end > since), self._recovery)

    def _came_back(
        self, life: Life, delivery: Operation, name: str, window: Window, calm: Calm, held: int
    ) -> Iterator[Violation]:
        if any(_is_of(call, delivery) for call in life.settlements):
            return  # it may have gone another way
        rows = [each for each in life.by_count() if (each.delivery_count or 0) > (delivery.delivery_count or 0)]
        if not rows and life.observations and life.observations[-1].detail.get("state") in FINAL_STATES:
            return  # a sweep set it aside: its lease had lapsed once too often
        came = rows[0].at if rows else self._ended
        if rows:
            self._figures["handed_out_again"] += 1
            self._worst("worst_worker_redelivery_seconds", came - window.end)
        visibility = float(delivery.detail.get("visibility") or self._history.facts.visibility_timeout)
        due = calm.after(window.end, visibility + _SWEEP + _MARGIN + held / _AT_ONCE)
        if came > due and (why := self._held_up(delivery, due, came, window)):
            text = (
                f"{name} died ({window.name}), and what it held was handed out {came - window.end:.1f} s later"
                if rows
                else f"{name} died ({window.name}), and what it held was not handed out again in {came - window.end:.1f} s"
            )
            yield Violation(f"{text}; {why}", life.task_id, came)

    def _held_up(self, delivery: Operation, due: float, came: float, dead: Window) -> str | None:
        """What shows that it did not just wait its turn."""
        newer = self._new_work.get(self._line_of(delivery), [])
        for other in newer[bisect_right(newer, due + _SWEEP, key=_at) : bisect_left(newer, came, key=_at)]:
            holders = (other.pid, str(other.incarnation))
            if not self._faults.hit(holders, due, other.at):
                return f"meanwhile {other.process} was given new work at the same priority"
        moments = [due, *self._activity[bisect_right(self._activity, due) : bisect_left(self._activity, came)], came]
        for since, until in pairwise(moments):
            if self._calm.between(since, until) > _IDLE and not self._is_any_running(since, until, dead):
                return f"for {until - since:.1f} s nothing at all happened"
        return None

    def _is_any_running(self, since: float, until: float, dead: Window) -> bool:
        """Whether a slot was taken all that time, by a run in a process that had not died with the worker."""
        return any(
            run.began <= since and life.gone_by(run) >= until and run.start.pid not in dead.pids
            for life in self._lives.values()
            for run in life.runs
        )

    # ------------------------------------------------------------ reading

    def _read_workers(self) -> Mapping[str, _Worker]:
        workers: dict[str, _Worker] = {}
        settled = {
            (call.invoked.task_id, call.invoked.lease) for life in self._lives.values() for call in life.settlements if call.is_ok
        }
        for operation in self._history.of(Verb.DELIVER, Verb.SETTLE, Verb.RENEW, Verb.RECLAIM):
            name = operation.incarnation or operation.process
            worker = workers.setdefault(name, _Worker(operation.pid))
            worker.last_words = operation.at
            if operation.verb is Verb.DELIVER and operation.task_id and (operation.task_id, operation.lease) not in settled:
                worker.held.append((self._lives[operation.task_id], operation))
        return workers

    def _line_of(self, delivery: Operation) -> tuple[str, object]:
        """Where it stands in line: its queue and priority."""
        life = self._lives.get(delivery.task_id or "")
        return str(delivery.detail.get("queue")), None if life is None else life.enqueued("priority")

    def _disturbs(self, window: Window) -> bool:
        """Whether others may be slower to take over. An executor's fault leaves its worker, and the broker, as they were."""
        is_harmless = window.name in _HARMLESS and not (window.pids or window.incarnations or window.everything)
        return not (is_harmless or self._hits_executors_only(window))

    def _hits_executors_only(self, window: Window) -> bool:
        return window.name.endswith("-executor") or (
            bool(window.pids) and not window.everything and window.pids <= self._executors
        )

    def _worst(self, name: str, seconds: float) -> None:
        self._figures[name] = max(seconds, self._figures.get(name, 0.0))


def _kills(window: Window) -> bool:
    """Whether what it hit is dead from then on, not just stopped."""
    return window.name in _KILLS


def _is_of(call: Call, delivery: Operation) -> bool:
    return call.invoked.lease == delivery.lease


def _at(operation: Operation) -> float:
    return operation.at
