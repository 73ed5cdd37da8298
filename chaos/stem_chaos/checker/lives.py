"""The operations of a history, put together task by task: what every checker begins with.

Owns the pairing of invocations with their ends. An invocation without an end is one whose outcome nobody knows: its process may
have died between doing a thing and writing it down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stem_chaos.history import History, Operation, Phase, Verb

__all__ = ["DEAD_LETTER", "FINAL_STATES", "Call", "Life", "Run", "read_lives", "what_is_missing"]

DEAD_LETTER = "dead-letter"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_CALLS = frozenset({Verb.ENQUEUE, Verb.SETTLE, Verb.RENEW})


@dataclass(slots=True)
class Call:
    """An operation that takes time. It took effect, if it did, between `began` and `ended`."""

    invoked: Operation
    answer: Operation | None = None

    @property
    def phase(self) -> Phase:
        return Phase.INFO if self.answer is None else self.answer.phase

    @property
    def is_ok(self) -> bool:
        return self.phase is Phase.OK

    @property
    def began(self) -> float:
        return self.invoked.at

    @property
    def ended(self) -> float:
        return float("inf") if self.answer is None else self.answer.at

    def get(self, name: str, default: Any = None) -> Any:
        """A detail, as either of the two operations has it; the answer's counts."""
        for operation in (self.answer, self.invoked):
            if operation is not None and operation.detail.get(name) is not None:
                return operation.detail[name]
        return default

    @property
    def verdict(self) -> str:
        return str(self.get("verdict", ""))

    @property
    def is_final(self) -> bool:
        """Whether this settlement ends its task for good."""
        return self.verdict in ("ack", DEAD_LETTER)


@dataclass(slots=True)
class Run:
    """User code that was entered; `end` None: nobody saw it leave."""

    start: Operation
    end: Operation | None = None

    @property
    def began(self) -> float:
        return self.start.at

    @property
    def ended(self) -> float:
        return float("inf") if self.end is None else self.end.at

    @property
    def attempt(self) -> int:
        return self.start.attempt or 0


@dataclass(slots=True)
class Life:
    """Everything that happened to one task, each by time."""

    task_id: str
    enqueues: list[Call] = field(default_factory=list)
    deliveries: list[Operation] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    settlements: list[Call] = field(default_factory=list)
    renewals: list[Call] = field(default_factory=list)
    observations: list[Operation] = field(default_factory=list)

    @property
    def since(self) -> float:
        """When it was first heard of."""
        first = [call.began for call in self.enqueues[:1]] + [each.at for each in self.deliveries[:1]]
        return min(first, default=0.0)

    @property
    def is_accepted(self) -> bool:
        return any(call.is_ok for call in self.enqueues)

    @property
    def is_refused(self) -> bool:
        """Whether every enqueue of it certainly added nothing."""
        return bool(self.enqueues) and all(call.phase is Phase.FAIL for call in self.enqueues)

    def enqueued(self, name: str, default: Any = None) -> Any:
        """A detail of its enqueue."""
        return next((found for call in self.enqueues if (found := call.get(name)) is not None), default)

    @property
    def is_poison(self) -> bool:
        return str(self.enqueued("expects", self.enqueued("workload"))) == "poison"

    def by_count(self) -> list[Operation]:
        """One hand-out of each delivery count, in the order in which the broker made them."""
        first: dict[int, Operation] = {}
        for delivery in self.deliveries:
            first.setdefault(delivery.delivery_count or 0, delivery)
        return [first[count] for count in sorted(first)]

    def gone_by(self, run: Run) -> float:
        """When a run was over at the latest: its end, or what became of its hand-out, or the next one."""
        if run.end is not None:
            return run.ended
        later = [each.at for each in self.deliveries if each.at > run.began]
        later += [call.began for call in self.settlements if call.began > run.began]
        return min(later, default=float("inf"))

    def count_of(self, operation: Operation) -> int | None:
        """The delivery count of the lease that an operation names; None where the history does not show its hand-out."""
        if operation.delivery_count is not None:
            return operation.delivery_count
        return next((each.delivery_count for each in self.deliveries if each.lease == operation.lease), None)

    def delivery_of(self, operation: Operation) -> Operation | None:
        """The hand-out of the lease that an operation names."""
        return next((each for each in self.deliveries if each.lease == operation.lease), None)


@dataclass(frozen=True, slots=True)
class _Read:
    """The last history that was read, since all checkers look at one history, one after the other."""

    history: History
    lives: Mapping[str, Life]


_last: list[_Read] = []


def read_lives(history: History) -> Mapping[str, Life]:
    """Every task that an operation names, in the order in which they appeared. To be read only."""
    for read in _last:
        if read.history is history:
            return read.lives
    lives = _read(history)
    _last[:] = [_Read(history, lives)]
    return lives


def what_is_missing(history: History) -> str | None:
    """Why hand-outs are missing that no fault explains: an older version, run side by side, did not write them down."""
    old = history.facts.versions.get("old", "")
    return f"the old version wrote down only a part of what it did: {old}" if "not recorded" in old else None


def _read(history: History) -> dict[str, Life]:
    lives: dict[str, Life] = {}
    pending: dict[tuple[Verb, str, int, int], list[Call]] = defaultdict(list)
    running: dict[tuple[str, int, str, int | None], list[Run]] = defaultdict(list)
    for operation in history.operations:
        if operation.verb in _CALLS and operation.phase is not Phase.INVOKE:
            for call in _answered(pending, operation):
                call.answer = operation
            continue
        if operation.task_id is None:
            continue
        life = lives.get(operation.task_id)
        if life is None:
            life = lives[operation.task_id] = Life(operation.task_id)
        match operation.verb:
            case Verb.ENQUEUE | Verb.SETTLE | Verb.RENEW:
                call = Call(operation)
                pending[operation.verb, operation.process, operation.pid, operation.call].append(call)
                _calls_of(life, operation.verb).append(call)
            case Verb.DELIVER:
                life.deliveries.append(operation)
            case Verb.START:
                run = Run(operation)
                running[operation.process, operation.pid, operation.task_id, operation.attempt].append(run)
                life.runs.append(run)
            case Verb.END:
                begun = running[operation.process, operation.pid, operation.task_id, operation.attempt]
                if begun:
                    begun.pop(0).end = operation
            case Verb.OBSERVE:
                life.observations.append(operation)
            case _:
                pass
    return lives


def _calls_of(life: Life, verb: Verb) -> list[Call]:
    if verb is Verb.ENQUEUE:
        return life.enqueues
    return life.settlements if verb is Verb.SETTLE else life.renewals


def _answered(pending: dict[tuple[Verb, str, int, int], list[Call]], answer: Operation) -> Iterator[Call]:
    """The calls that an operation answers: one of a batch that shares a number, or all of it where it names no task."""
    key = answer.verb, answer.process, answer.pid, answer.call
    left = []
    for call in pending.pop(key, ()):
        if answer.task_id in (None, call.invoked.task_id) and answer.lease in (None, call.invoked.lease):
            yield call
        else:
            left.append(call)
    if left:
        pending[key] = left
