"""Histories written by hand: each method of `Story` adds what one process would have written down, at the moment that is said.

A worker is named by its incarnation, `w1`; its process ids and those of its executors follow from the name (`pid_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stem_chaos.history import History, Operation, Phase, RunFacts, Verb

__all__ = ["FACTS", "VISIBILITY", "Story", "pid_of"]

VISIBILITY = 10.0
FACTS = RunFacts(
    suite="hand-written",
    broker="memory",
    seed=7,
    visibility_timeout=VISIBILITY,
    max_deliveries=3,
    nodes=2,
    workers=1,
    concurrency=2,
    started_at=0.0,
)
_WALL = 1_700_000_000.0


def pid_of(process: str) -> int:
    """Of a worker (`w1`), or of one of its executors (`w1/0`)."""
    worker, _, executor = process.partition("/")
    return int(worker[1:]) * 1000 + (1 + int(executor) if executor else 0)


class Story:
    """Operations by hand. Times are seconds from the start of the run."""

    def __init__(self, **facts: Any) -> None:
        self.facts = replace(FACTS, **facts)
        self.operations: list[Operation] = []
        self._calls = 0

    def history(self) -> History:
        operations = sorted(self.operations, key=lambda operation: operation.at)
        ended_at = operations[-1].at if operations else 0.0
        return History(replace(self.facts, ended_at=ended_at), operations)

    # ------------------------------------------------------------ one operation each

    def enqueue(self, task: str, at: float, phase: Phase | None = Phase.OK, ended: float | None = None, **detail: Any) -> None:
        """`phase` None: it was never answered."""
        said = {"workload": "short", "task": "double", "queue": "default", "priority": 0, "delay": 0.0, **detail}
        self._call(Verb.ENQUEUE, "client", 1, at, phase, at + 0.001 if ended is None else ended, said, task_id=task)

    def deliver(
        self,
        task: str,
        at: float,
        count: int = 1,
        worker: str = "w1",
        attempt: int = 0,
        deaths: Sequence[str] = (),
        lease: str | None = None,
        **detail: Any,
    ) -> None:
        said = {"queue": "default", "deaths": list(deaths), "lapses": 0, "visibility": VISIBILITY, **detail}
        self._add(
            Verb.DELIVER, Phase.OK, worker, pid_of(worker), at, said, task, worker, attempt, count, lease or f"{task}#{count}"
        )

    def start(self, task: str, at: float, executor: str = "w1/0", attempt: int = 0) -> None:
        pid = pid_of(executor)
        said = {"task": "double", "worker": executor.partition("/")[0]}
        self._add(Verb.START, Phase.OK, f"executor-{pid}", pid, at, said, task, None, attempt)

    def end(self, task: str, at: float, executor: str = "w1/0", attempt: int = 0, outcome: str = "returned") -> None:
        pid = pid_of(executor)
        self._add(Verb.END, Phase.OK, f"executor-{pid}", pid, at, {"outcome": outcome}, task, None, attempt)

    def settle(
        self,
        task: str,
        at: float,
        verdict: str = "ack",
        count: int = 1,
        worker: str = "w1",
        attempt: int = 0,
        phase: Phase | None = Phase.OK,
        ended: float | None = None,
        lease: str | None = None,
        **detail: Any,
    ) -> None:
        state = {"ack": "succeeded", "dead-letter": "failed", "retry": "retried"}.get(verdict)
        said = {"verdict": verdict, **({} if state is None else {"state": state}), **detail}
        self._lease(Verb.SETTLE, task, at, count, worker, attempt, phase, ended, lease, said)

    def renew(
        self,
        task: str,
        at: float,
        count: int = 1,
        worker: str = "w1",
        attempt: int = 0,
        phase: Phase | None = Phase.OK,
        ended: float | None = None,
    ) -> None:
        self._lease(Verb.RENEW, task, at, count, worker, attempt, phase, ended, None, {})

    def fault(
        self,
        name: str,
        begin: float,
        end: float | None = None,
        pids: Sequence[int] = (),
        incarnations: Sequence[str] = (),
        everything: bool = False,
        phase: Phase | None = Phase.OK,
        **detail: Any,
    ) -> None:
        """Without an end it is over at once; `phase` None: it was never undone."""
        said = {
            "fault": name,
            "target": name,
            "pids": list(pids),
            "incarnations": list(incarnations),
            "everything": everything,
            **detail,
        }
        self._call(Verb.FAULT, "nemesis", 2, begin, phase, begin + 0.01 if end is None else end, said)

    def kill_worker(self, worker: str, at: float, executors: int = 2) -> None:
        pids = [pid_of(worker), *(pid_of(f"{worker}/{each}") for each in range(executors))]
        self.fault("kill-worker", at, pids=pids, incarnations=[worker])

    def kill_executor(self, executor: str, at: float) -> None:
        self.fault("kill-executor", at, pids=[pid_of(executor)])

    def observe(self, task: str, at: float, state: str = "succeeded", result: Any = 4, **detail: Any) -> None:
        told = {"state": state, **({"result": result} if state == "succeeded" else {}), **detail}
        self._add(Verb.OBSERVE, Phase.OK, "client", 1, at, told, task)

    def measure(self, at: float, **counted: Any) -> None:
        self._add(Verb.MEASURE, Phase.OK, "runner", 3, at, counted)

    # ------------------------------------------------------------ many at once

    def run(self, task: str, at: float, lasts: float = 0.01, executor: str = "w1/0", count: int = 1, attempt: int = 0) -> None:
        """Handed out, run, settled as done."""
        worker = executor.partition("/")[0]
        self.deliver(task, at, count, worker, attempt)
        self.start(task, at + 0.001, executor, attempt)
        self.end(task, at + 0.001 + lasts, executor, attempt)
        self.settle(task, at + 0.002 + lasts, "ack", count, worker, attempt)

    def life(self, task: str, at: float, lasts: float = 0.01, executor: str = "w1/0", **detail: Any) -> None:
        """From its enqueue to its record, with nothing out of the ordinary."""
        self.enqueue(task, at, **detail)
        self.run(task, at + 0.01, lasts, executor)
        self.observe(task, at + lasts + 0.1)

    # ------------------------------------------------------------ inside

    def _lease(
        self,
        verb: Verb,
        task: str,
        at: float,
        count: int,
        worker: str,
        attempt: int,
        phase: Phase | None,
        ended: float | None,
        lease: str | None,
        said: Mapping[str, Any],
    ) -> None:
        if phase is Phase.FAIL:
            said = {**said, "answer": "stale"}
        fields = {
            "task_id": task,
            "incarnation": worker,
            "attempt": attempt,
            "delivery_count": count,
            "lease": lease or f"{task}#{count}",
        }
        self._call(verb, worker, pid_of(worker), at, phase, at + 0.001 if ended is None else ended, said, **fields)

    def _call(
        self,
        verb: Verb,
        process: str,
        pid: int,
        at: float,
        phase: Phase | None,
        ended: float,
        said: Mapping[str, Any],
        **fields: Any,
    ) -> None:
        self._calls += 1
        for each, moment in ((Phase.INVOKE, at), (phase, ended)):
            if each is not None:
                operation = Operation(verb, each, self._calls, process, pid, moment, _WALL + moment, detail=said, **fields)
                self.operations.append(operation)

    def _add(
        self,
        verb: Verb,
        phase: Phase,
        process: str,
        pid: int,
        at: float,
        detail: Mapping[str, Any],
        task: str | None = None,
        incarnation: str | None = None,
        attempt: int | None = None,
        count: int | None = None,
        lease: str | None = None,
    ) -> None:
        self._calls += 1
        self.operations.append(
            Operation(verb, phase, self._calls, process, pid, at, _WALL + at, task, incarnation, attempt, count, lease, detail)
        )
