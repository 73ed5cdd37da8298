"""A simulation as a history, so that the checkers which judge real clusters judge it too.

What a simulation wrote down is what happened at its broker, not what its processes got to hear: a lost answer is no `info` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stem_actors.model.record import TaskRecord
from stem_actors.testing import Entry, Simulation
from stem_chaos.checker.counters import check_counters
from stem_chaos.checker.delays import check_delays
from stem_chaos.checker.duplicates import check_duplicates
from stem_chaos.checker.ends import check_ends
from stem_chaos.checker.fencing import check_fencing
from stem_chaos.checker.finding import Checker, Finding, Validity
from stem_chaos.checker.no_loss import check_no_loss
from stem_chaos.checker.poison import check_poison
from stem_chaos.checker.priorities import check_priorities
from stem_chaos.checker.recovery import check_recovery
from stem_chaos.checker.terminal import check_terminal_once
from stem_chaos.history import History, Operation, Phase, RunFacts, Verb

__all__ = ["CHECKERS", "broken", "history_of"]

CHECKERS: Sequence[Checker] = (
    check_no_loss,
    check_terminal_once,
    check_fencing,
    check_duplicates,
    check_recovery,
    check_poison,
    check_counters,
    check_ends,
    check_delays,
    check_priorities,
)
"""Those that need no real processes."""

_VERBS = {verb.value for verb in Verb}


def broken(
    simulation: Simulation, expects: Mapping[str, str] | None = None, checkers: Sequence[Checker] = CHECKERS
) -> list[Finding]:
    """What the checkers find broken; empty when all promises were kept. `expects`: see `history_of`."""
    history = history_of(simulation, expects)
    return [finding for check in checkers if (finding := check(history)).validity is Validity.INVALID]


def history_of(simulation: Simulation, expects: Mapping[str, str] | None = None) -> History:
    """All that happened so far, and each task's record as it is now.

    `expects` says by a task's name how its own code makes it end: in a final state, or as a dead letter for a reason. One that
    ends its own process is expected to be `poison`.
    """
    entries = (entry for entry in simulation.journal.entries if entry.verb in _VERBS)
    operations = [_operation(simulation, entry, expects or {}) for entry in entries]
    operations += _observations(simulation, len(simulation.journal.entries))
    return History(_facts(simulation), operations)


def _operation(simulation: Simulation, entry: Entry, expects: Mapping[str, str]) -> Operation:
    verb, phase, call, who, at, task_id, attempt, delivery_count, lease, detail = entry
    if verb == Verb.ENQUEUE and (expected := expects.get(detail.get("task", ""))) is not None:
        detail = {**detail, "expects": expected}
    return Operation(
        Verb(verb),
        Phase(phase),
        call,
        who.name,
        who.pid,
        at,
        simulation.began_at + at,
        task_id,
        who.incarnation,
        attempt,
        delivery_count,
        lease,
        detail,
    )


def _observations(simulation: Simulation, calls: int) -> Iterator[Operation]:
    known = dict.fromkeys(entry.task_id for entry in simulation.journal.of("enqueue") if entry.task_id is not None)
    for number, task_id in enumerate(known, calls + 1):
        record, at = simulation.record(task_id), simulation.now
        detail = {"when": "end", "state": record.state.value, "dead_letter": simulation.dead_letter(task_id), **_ending(record)}
        wall = simulation.began_at + at
        yield Operation(Verb.OBSERVE, Phase.OK, number, "client", 0, at, wall, task_id, detail=detail)


def _ending(record: TaskRecord) -> dict[str, str | None]:
    return {
        "result": None if record.payload is None else record.payload.hex(),
        "error": None if record.error is None else record.error.type,
    }


def _facts(simulation: Simulation) -> RunFacts:
    settings = simulation.settings
    ends = [entry.at for entry in simulation.journal.of("fault") if entry.phase == "ok"]
    return RunFacts(
        suite="simulation",
        broker="simulated",
        seed=simulation.seed,
        visibility_timeout=settings.visibility_timeout,
        max_deliveries=settings.max_deliveries,
        nodes=1,
        workers=len(simulation.workers),
        concurrency=settings.concurrency,
        started_at=0.0,
        ended_at=simulation.now,
        quiet_from=max(ends, default=None),
    )
