"""No needless duplicates: a run is repeated, or meets another one of its task, only where a fault explains it. Promise P6.

A run is explained when a fault hit its executor, its worker, or everything, while it ran or until the next one began. The
effect of a fault lasts on for a visibility timeout and the second in which the broker is swept: so long a lease may go
unrenewed by then. Beside faults there is what tasks do to themselves: a poison task takes along what shares its process, and so
does a hard limit. Hand-outs order runs, not the moments at which they begin, so a fault that hit either of the two will do.
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.counters import deaths_of
from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.holders import Lost, deliveries_of, holders_of, visibility_of
from stem_chaos.checker.lives import DEAD_LETTER, Life, Run, read_lives
from stem_chaos.history import History

__all__ = ["PROMISE", "check_duplicates"]

PROMISE = "Without a fault each attempt ran once, and never beside another of its task."
_SWEEP = 1.0
_OPERATORS = "own"  # the workload of tasks that somebody else has written


def check_duplicates(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    lost = Lost(history, lives)
    figures = {"runs": 0, "repeated": 0, "side_by_side": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            figures["runs"] += len(life.runs)
            for earlier, later in _collisions(life):
                is_beside = earlier.end is not None and earlier.ended > later.began
                figures["side_by_side" if is_beside else "repeated"] += 1
                if not (_is_covered(history, faults, life, earlier, later) or _is_taken_along(lost, life, earlier)):
                    how = "beside" if is_beside else "after"
                    text = (
                        f"attempt {later.attempt} began in process {later.start.pid} {how} attempt {earlier.attempt} in process "
                        f"{earlier.start.pid}, {later.began - earlier.began:.3f} s later, and no fault had hit either"
                    )
                    yield Violation(text, life.task_id, later.began)

    return conclude("duplicates", PROMISE, list(violations()), figures)


def _collisions(life: Life) -> Iterator[tuple[Run, Run]]:
    """Each run that should not have been, with the one that it repeats or meets."""
    for position, later in enumerate(life.runs[1:], 1):
        for earlier in reversed(life.runs[:position]):
            is_repeated = earlier.attempt >= later.attempt
            if is_repeated or (earlier.end is not None and earlier.ended > later.began):
                if not (is_repeated and _was_ended_between(life, earlier, later)):
                    yield earlier, later
                break


def _was_ended_between(life: Life, earlier: Run, later: Run) -> bool:
    """A task that runs again after its end was replayed, or is a matter for the checker of ends."""
    return any(call.is_ok and call.is_final and earlier.began < call.ended < later.began for call in life.settlements)


def _is_covered(history: History, faults: Faults, life: Life, earlier: Run, later: Run) -> bool:
    slack = visibility_of(history, deliveries_of(life, earlier)) + _SWEEP
    holders = holders_of(life, earlier) | holders_of(life, later)
    return faults.hit(holders, earlier.began - slack, later.began)


def _is_taken_along(lost: Lost, life: Life, run: Run) -> bool:
    """Whether its process was ended by a task: by itself, or by one that ran in it at the same time."""
    for companion, theirs in lost.beside(life, run):
        was_there = run.end is None or run.ended >= theirs.began
        if was_there and (_is_deadly(companion) or (companion is not life and _was_stopped_hard(companion, theirs))):
            return True
    return False


def _is_deadly(life: Life) -> bool:
    """Whether a task ends its own process: it is there for that, or it is an operator's and was charged with a death."""
    return life.is_poison or (life.enqueued("workload") == _OPERATORS and any(map(deaths_of, life.deliveries)))


def _was_stopped_hard(life: Life, run: Run) -> bool:
    """Whether a lost run counted as failed, as one that overran its hard limit does."""
    return any(call.verdict in ("retry", DEAD_LETTER) and call.began >= run.began for call in life.settlements)
