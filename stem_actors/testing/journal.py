"""The journal of a simulation: every operation, as nobody in a real system could know it, and what is read out of it.

Its entries have the fields of an operation in a chaos run's history, whose checkers judge it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stem_actors.executors.vital_signs import MADE_UP
from stem_actors.testing.clock import VirtualClock

__all__ = ["Attempt", "Entry", "Journal", "Who"]


class Who(NamedTuple):
    """A process that is played: its name in the journal, its number in this simulation, and a worker's incarnation."""

    name: str
    number: int
    incarnation: str | None = None

    @property
    def pid(self) -> int:
        """A process id that no real process has."""
        return MADE_UP + self.number


class Entry(NamedTuple):
    """One thing that happened, `at` seconds since the beginning. `call` pairs the end of an operation with its beginning."""

    verb: str
    phase: str
    call: int
    who: Who
    at: float
    task_id: str | None
    attempt: int | None
    delivery_count: int | None
    lease: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a task's function ran. Times are seconds since the simulation began.

    `number`   0 for the first, one more after each that failed or asked for a retry; the same again after a redelivery
    `outcome`  `returned`, `raised`, `retry`, `interrupted`, `killed` (with its executor), or `running`
    `error`    what it raised, as `ValueError: not yet`, or what killed its executor
    """

    number: int
    started_at: float
    ended_at: float | None
    outcome: str
    error: str | None = None


class Journal:
    """All entries so far, in order."""

    def __init__(self, clock: VirtualClock) -> None:
        self.entries: list[Entry] = []
        self._clock = clock
        self._calls = 0

    def invoke(self, verb: str, who: Who, task_id: str | None = None, **fields: Any) -> int:
        """An operation begins; the number that its end must name."""
        self._calls += 1
        self._write(verb, "invoke", self._calls, who, task_id, **fields)
        return self._calls

    def end(self, verb: str, phase: str, call: int, who: Who, task_id: str | None = None, **fields: Any) -> None:
        """An operation ends."""
        self._write(verb, phase, call, who, task_id, **fields)

    def happened(self, verb: str, who: Who, task_id: str | None = None, **fields: Any) -> None:
        """Something that has no beginning of its own."""
        self._calls += 1
        self._write(verb, "ok", self._calls, who, task_id, **fields)

    def _write(
        self,
        verb: str,
        phase: str,
        call: int,
        who: Who,
        task_id: str | None,
        *,
        attempt: int | None = None,
        delivery_count: int | None = None,
        lease: str | None = None,
        **detail: Any,
    ) -> None:
        self.entries.append(Entry(verb, phase, call, who, self._clock.elapsed, task_id, attempt, delivery_count, lease, detail))

    # ------------------------------------------------------------ read

    def of(self, *verbs: str) -> Iterator[Entry]:
        """The entries with one of these verbs."""
        return (entry for entry in self.entries if entry.verb in verbs)

    def attempts(self, task_id: str) -> Sequence[Attempt]:
        """Every time that this task ran, in order."""
        running: dict[int, Entry] = {}
        ended: list[tuple[int, Attempt]] = []
        for entry in self.of("start", "end", "death"):
            if entry.verb == "death":
                if (begun := running.pop(entry.who.pid, None)) is not None:
                    ended.append((begun.call, self._attempt(begun, entry, "killed", entry.detail["cause"])))
            elif entry.task_id == task_id and entry.verb == "start":
                running[entry.who.pid] = entry
            elif entry.task_id == task_id and (begun := running.pop(entry.who.pid, None)) is not None:
                ended.append((begun.call, self._attempt(begun, entry, entry.detail["ending"], entry.detail.get("said"))))
        ended += [(start.call, self._attempt(start, None, "running", None)) for start in running.values()]
        return [attempt for _, attempt in sorted(ended, key=lambda pair: pair[0])]

    def _attempt(self, start: Entry, end: Entry | None, outcome: str, error: str | None) -> Attempt:
        return Attempt(start.attempt or 0, start.at, None if end is None else end.at, outcome, error)

    def text(self, last: int | None = None) -> str:
        """For people, a line for each entry; ids are numbered, so that two runs of one schedule read the same."""
        names: dict[str, str] = {}

        def named(task_id: str | None) -> str:
            return "" if task_id is None else names.setdefault(task_id, f"task-{len(names) + 1}")

        lines = []
        for entry in self.entries:
            detail = " ".join(
                f"{key}={_shown(value)}" for key, value in entry.detail.items() if value not in (None, (), [], False)
            )
            counters = "" if entry.attempt is None else f" attempt {entry.attempt}"
            lease = "" if entry.lease is None else f" lease {entry.lease}"
            what = entry.verb if entry.phase == "ok" else f"{entry.verb} {entry.phase}"
            subject = f"{entry.who.name:14} {what} {named(entry.task_id)}{counters}{lease}"
            lines.append(f"{entry.at:10.3f} s  {subject} {detail}".rstrip())
        return "\n".join(lines if last is None else lines[-last:])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
