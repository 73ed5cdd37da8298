"""Whatever happens in a system that keeps its promises, no checker finds one broken; and one thing made wrong is found.

`System` is a small model of Stem: tasks, workers with executors, a broker with leases that counts and fences, and faults that
kill. It writes its history as the probes would, with what a kill loses left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_chaos.checker.all import CHECKERS
from stem_chaos.checker.counters import check_counters
from stem_chaos.checker.delays import check_delays
from stem_chaos.checker.duplicates import check_duplicates
from stem_chaos.checker.ends import check_ends
from stem_chaos.checker.fencing import check_fencing
from stem_chaos.checker.finding import Checker, Validity
from stem_chaos.checker.no_loss import check_no_loss
from stem_chaos.checker.poison import check_poison
from stem_chaos.checker.recovery import check_recovery
from stem_chaos.checker.terminal import check_terminal_once
from stem_chaos.history import History, Operation, Phase, Verb
from tests.chaos.histories import FACTS, VISIBILITY, Story, pid_of

MAX_RETRIES = 2
RETRY_DELAY = 0.5


@dataclass
class Waiting:
    """A task at the broker. `holder`: who has it, with the lease's end."""

    task: str
    due: float
    kind: str
    count: int = 0
    attempt: int = 0
    deaths: list[str] = field(default_factory=list)
    lapses: int = 0
    fails: int = 0


@dataclass
class Worker:
    name: str
    free: list[int]
    fetches: int = 0


class System:
    """Runs by ticks of chance; everything that takes effect is written into `story`."""

    def __init__(self, chance: random.Random, tasks: int, faults: bool) -> None:
        self.chance = chance
        self.story = Story()
        self.now = 0.0
        self.workers = [self._worker(1), self._worker(2)]
        self.born = 2
        self.ready: list[Waiting] = []
        self.running: list[tuple[float, Waiting, Worker, int]] = []
        self.lapsing: list[tuple[float, Waiting]] = []
        self.ended: dict[str, tuple[str, str | None]] = {}
        self.faults = faults
        self.accepted = [f"t{number}" for number in range(tasks)]

    def _worker(self, number: int) -> Worker:
        return Worker(f"w{number}", [0, 1])

    def run(self) -> History:
        for task in self.accepted:
            self._enqueue(task)
        while self.ready or self.running or self.lapsing:
            self.now += self.chance.uniform(0.01, 0.2)
            self._come_back()
            self._fetch()
            self._finish()
            if self.faults and self.chance.random() < 0.05 and self.now < 30:
                self.chance.choice((self._kill_executor, self._kill_worker))()
        self.now += 5.0
        for task, (state, reason) in self.ended.items():
            self.story.observe(task, self.now, state, **({} if reason is None else {"reason": reason, "dead_letter": reason}))
        return self.story.history()

    # ------------------------------------------------------------ the life of a task

    def _enqueue(self, task: str) -> None:
        kind = self.chance.choice(("plain", "plain", "plain", "poison", "fails"))
        delay = self.chance.choice((0.0, 0.0, 1.5))
        fails = self.chance.randint(1, MAX_RETRIES + 1) if kind == "fails" else 0
        expects = "poison" if kind == "poison" else "max-retries-exhausted" if fails > MAX_RETRIES else "succeeded"
        self.now += 0.01
        phase = self.chance.choice((Phase.OK, Phase.OK, Phase.INFO, None))
        self.story.enqueue(task, self.now, phase, delay=delay, expects=expects, max_retries=MAX_RETRIES)
        self.ready.append(Waiting(task, self.now + 0.0005 + delay, kind, fails=fails))

    def _fetch(self) -> None:
        for worker in self.workers:
            due = sorted((each for each in self.ready if each.due <= self.now), key=lambda each: (each.count == 0, each.due))
            fetched = due[: len(worker.free)]
            worker.fetches += bool(fetched)
            for waiting in fetched:
                self.ready.remove(waiting)
                waiting.count += 1
                self.now += 0.001
                is_lost = self.faults and self.chance.random() < 0.02
                if is_lost:  # it was handed out, and nobody lived to write it down
                    self._put_down(worker)
                    waiting.lapses += 1
                    self.lapsing.append((self.now + VISIBILITY + 0.5, waiting))
                    return
                self.story.deliver(
                    waiting.task,
                    self.now,
                    waiting.count,
                    worker.name,
                    waiting.attempt,
                    waiting.deaths,
                    lapses=waiting.lapses,
                    fetch=worker.fetches,
                )
                executor = worker.free.pop()
                self.now += 0.001
                self.story.start(waiting.task, self.now, f"{worker.name}/{executor}", waiting.attempt)
                self.running.append((self.now + self.chance.uniform(0.001, 1.0), waiting, worker, executor))

    def _finish(self) -> None:
        for entry in [each for each in self.running if each[0] <= self.now]:
            _, waiting, worker, executor = entry
            self.running.remove(entry)
            worker.free.append(executor)
            if waiting.kind == "poison":
                self._died(waiting, worker, "killed by signal 11")
                worker.free.remove(executor)
                worker.free.append(executor + 2)
                continue
            has_failed = waiting.attempt < waiting.fails
            self.now += 0.001
            outcome = "raised" if has_failed else "returned"
            self.story.end(waiting.task, self.now, f"{worker.name}/{executor}", waiting.attempt, outcome)
            if not has_failed:
                self._settle(waiting, worker, "ack")
                self.ended[waiting.task] = "succeeded", None
            elif waiting.attempt >= MAX_RETRIES:
                self._settle(waiting, worker, "dead-letter", reason="max-retries-exhausted")
                self.ended[waiting.task] = "failed", "max-retries-exhausted"
            else:
                self._settle(waiting, worker, "retry", delay=RETRY_DELAY, deaths=list(waiting.deaths))
                waiting.attempt, waiting.lapses, waiting.due = waiting.attempt + 1, 0, self.now + RETRY_DELAY
                self.ready.append(waiting)

    def _settle(self, waiting: Waiting, worker: Worker, verdict: str, **detail: object) -> None:
        """The broker does it, and the answer may be lost on its way."""
        self.now += 0.001
        phase = Phase.OK if not self.faults else self.chance.choice((Phase.OK, Phase.OK, Phase.OK, Phase.INFO))
        self.story.settle(waiting.task, self.now, verdict, waiting.count, worker.name, waiting.attempt, phase, **detail)  # type: ignore[arg-type]
        if phase is Phase.INFO:  # it asks again
            self.story.settle(
                waiting.task,
                self.now + 0.003,
                verdict,
                waiting.count,
                worker.name,
                waiting.attempt,
                Phase.FAIL,
                **detail,  # type: ignore[arg-type]
            )
        self.now += 0.005

    def _died(self, waiting: Waiting, worker: Worker, cause: str) -> None:
        waiting.deaths = [*waiting.deaths, cause]
        if len(waiting.deaths) >= FACTS.max_deliveries:
            self._settle(waiting, worker, "dead-letter", reason="poison", deaths=list(waiting.deaths))
            self.ended[waiting.task] = "failed", "poison"
        else:
            self._settle(waiting, worker, "release", deaths=list(waiting.deaths))
            self.ready.append(waiting)

    def _come_back(self) -> None:
        for entry in [each for each in self.lapsing if each[0] <= self.now]:
            self.lapsing.remove(entry)
            self.ready.append(entry[1])

    # ------------------------------------------------------------ faults

    def _kill_executor(self) -> None:
        if not self.running:
            return
        entry = self.chance.choice(self.running)
        _, waiting, worker, executor = entry
        self.story.kill_executor(f"{worker.name}/{executor}", self.now)
        self.now += 0.02
        self.running.remove(entry)
        self._died(waiting, worker, "killed by signal 9")
        worker.free.append(executor + 2)

    def _kill_worker(self) -> None:
        self._put_down(self.chance.choice(self.workers))

    def _put_down(self, worker: Worker) -> None:
        """It and all that it runs; another takes its place."""
        lost = [each for each in self.running if each[2] is worker]
        executors = max([each[3] for each in lost] + worker.free) + 1
        self.story.kill_worker(worker.name, self.now, executors)
        self.now += 0.02
        for entry in lost:
            self.running.remove(entry)
            waiting = entry[1]
            waiting.lapses += 1
            self.lapsing.append((self.now + VISIBILITY + self.chance.uniform(0.0, 1.0), waiting))
        self.born += 1
        self.workers[self.workers.index(worker)] = self._worker(self.born)


def broken(history: History) -> set[str]:
    return {finding.checker for check in CHECKERS if (finding := check(history)).validity is Validity.INVALID}


seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, tasks=st.integers(1, 25), faults=st.booleans())
def test_a_system_that_keeps_its_promises_is_never_found_to_break_one(seed: int, tasks: int, faults: bool) -> None:
    history = System(random.Random(seed), tasks, faults).run()
    findings = [check(history) for check in CHECKERS]
    assert [(each.checker, each.violations) for each in findings if each.validity is Validity.INVALID] == []


@given(seed=seeds, tasks=st.integers(1, 15), share=st.floats(0.0, 1.0))
def test_a_history_that_breaks_off_anywhere_breaks_no_promise(seed: int, tasks: int, share: float) -> None:
    whole = System(random.Random(seed), tasks, True).run()
    history = History(whole.facts, whole.operations[: int(len(whole.operations) * share)])
    assert broken(history) == set()


# ---------------------------------------------------------------- one thing made wrong


Change = Callable[[History, random.Random], list[Operation] | None]


def some(chance: random.Random, history: History, verb: Verb, phase: Phase = Phase.OK, **detail: object) -> Operation | None:
    """One of its operations that says so."""
    found = [
        each for each in history.of(verb, phase=phase) if all(each.detail.get(name) == value for name, value in detail.items())
    ]
    return chance.choice(found) if found else None


def lose_the_end(history: History, chance: random.Random) -> list[Operation] | None:
    accepted = {each.task_id for each in history.of(Verb.ENQUEUE, phase=Phase.OK)}
    found = [each for each in history.of(Verb.OBSERVE) if each.task_id in accepted]
    if not found:
        return None
    seen = chance.choice(found)
    return [replace(each, detail={"state": "queued"}) if each is seen else each for each in history.operations]


def end_twice(history: History, chance: random.Random) -> list[Operation] | None:
    end = some(chance, history, Verb.SETTLE, verdict="ack")
    if end is None:
        return None
    invoked = next(each for each in history.of(Verb.SETTLE, phase=Phase.INVOKE) if each.call == end.call)
    last = history.operations[-1].at
    again = [replace(invoked, call=10**6, at=last + 1.0), replace(end, call=10**6, at=last + 1.1)]
    return [*history.operations, *again]


def change_the_result(history: History, chance: random.Random) -> list[Operation] | None:
    seen = some(chance, history, Verb.OBSERVE, state="succeeded")
    if seen is None:
        return None
    return [*history.operations, replace(seen, at=history.operations[-1].at + 1.0, detail={**seen.detail, "result": "another"})]


def let_a_stale_holder_in(history: History, chance: random.Random) -> list[Operation] | None:
    again = [each for each in history.of(Verb.DELIVER) if (each.delivery_count or 0) > 1]
    if not again:
        return None
    newer = chance.choice(again)
    older = [
        each
        for each in history.of(Verb.DELIVER)
        if each.task_id == newer.task_id and (each.delivery_count or 0) < (newer.delivery_count or 0)
    ]
    if not older:
        return None
    holder = chance.choice(older)
    stale = replace(holder, verb=Verb.RENEW, call=10**6, detail={})
    asked = replace(stale, phase=Phase.INVOKE, at=newer.at + 0.0001)
    return [*history.operations, asked, replace(stale, at=newer.at + 0.0002)]


def run_it_again(history: History, chance: random.Random) -> list[Operation] | None:
    start = some(chance, history, Verb.START)
    if start is None:
        return None
    pid = pid_of("w99/0")
    again = replace(start, process=f"executor-{pid}", pid=pid, at=start.at + 0.00001, detail={"worker": "w99"})
    return [*history.operations, again]


def count_a_hand_out_twice(history: History, chance: random.Random) -> list[Operation] | None:
    delivery = some(chance, history, Verb.DELIVER)
    if delivery is None:
        return None
    return [*history.operations, replace(delivery, lease="another", at=delivery.at + 0.0001)]


def forget_a_retry(history: History, chance: random.Random) -> list[Operation] | None:
    retry = some(chance, history, Verb.SETTLE, verdict="retry")
    if retry is None or retry.delivery_count is None:
        return None

    def is_next(each: Operation) -> bool:
        count = (retry.delivery_count or 0) + 1
        return each.verb is Verb.DELIVER and each.task_id == retry.task_id and each.delivery_count == count

    if not any(map(is_next, history.operations)):
        return None
    return [replace(each, attempt=retry.attempt) if is_next(each) else each for each in history.operations]


def hand_out_too_soon(history: History, chance: random.Random) -> list[Operation] | None:
    seen = {each.task_id for each in history.of(Verb.DELIVER) if each.delivery_count == 1}
    asked_later = [each for each in history.of(Verb.ENQUEUE, phase=Phase.OK) if each.detail["delay"] > 0]
    delayed = [each for each in asked_later if each.task_id in seen]
    if not delayed:
        return None
    asked = chance.choice(delayed)
    return [
        replace(each, at=asked.at + 0.1)
        if each.verb is Verb.DELIVER and each.task_id == asked.task_id and each.delivery_count == 1
        else each
        for each in history.operations
    ]


def let_poison_succeed(history: History, chance: random.Random) -> list[Operation] | None:
    poison = {each.task_id for each in history.of(Verb.ENQUEUE, phase=Phase.OK) if each.detail["expects"] == "poison"}
    found = [each for each in history.of(Verb.OBSERVE) if each.task_id in poison]
    if not found:
        return None
    seen = chance.choice(found)
    return [replace(each, detail={"state": "succeeded", "result": 1}) if each is seen else each for each in history.operations]


def end_as_something_else(history: History, chance: random.Random) -> list[Operation] | None:
    seen = some(chance, history, Verb.OBSERVE, state="succeeded")
    if seen is None:
        return None
    said = {"state": "cancelled", "error": "TaskRevoked: why"}
    return [replace(each, detail=said) if each is seen else each for each in history.operations]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lose_the_end, check_no_loss),
        (end_twice, check_terminal_once),
        (change_the_result, check_terminal_once),
        (let_a_stale_holder_in, check_fencing),
        (count_a_hand_out_twice, check_counters),
        (forget_a_retry, check_counters),
        (hand_out_too_soon, check_delays),
        (let_poison_succeed, check_poison),
        (end_as_something_else, check_ends),
    ],
    ids=lambda part: part.__name__.replace("_", "-"),
)
@given(seed=seeds, tasks=st.integers(5, 25), faults=st.booleans())
def test_one_thing_made_wrong_is_found(change: Change, check: Checker, seed: int, tasks: int, faults: bool) -> None:
    chance = random.Random(seed)
    history = System(chance, tasks, faults).run()
    changed = change(history, chance)
    if changed is not None:
        finding = check(History(history.facts, sorted(changed, key=lambda operation: operation.at)))
        assert finding.validity is Validity.INVALID


@given(seed=seeds, tasks=st.integers(1, 25))
def test_a_run_that_is_repeated_without_any_fault_is_found(seed: int, tasks: int) -> None:
    chance = random.Random(seed)
    history = System(chance, tasks, faults=False).run()
    changed = run_it_again(history, chance)
    assert changed is not None
    finding = check_duplicates(History(history.facts, sorted(changed, key=lambda operation: operation.at)))
    repeated = changed[-1].task_id
    is_poison = any(each.task_id == repeated and each.detail["expects"] == "poison" for each in history.of(Verb.ENQUEUE))
    assert (finding.validity is Validity.INVALID) or is_poison


@given(seed=seeds, late=st.floats(8.0, 60.0))
def test_what_a_dead_worker_held_is_missed_however_much_else_goes_on(seed: int, late: float) -> None:
    chance, story = random.Random(seed), Story()
    story.enqueue("held", 0.0)
    story.deliver("held", 0.5, worker="w1")
    story.start("held", 0.6, "w1/0")
    story.kill_worker("w1", 1.0)
    until = 1.0 + VISIBILITY + late
    story.run("held", until, executor="w2/0", count=2)
    at = 1.5
    while at < until + 5.0:
        story.life(f"t{at:.3f}", at, executor="w2/1")
        at += chance.uniform(0.1, 1.0)
    assert check_recovery(story.history()).validity is Validity.INVALID
