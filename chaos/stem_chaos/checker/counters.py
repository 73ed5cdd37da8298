"""Counters: attempts, deliveries, deaths and lapses move as the design says (§4, the four counters).

| what became of a hand-out         | attempt | delivery count | deaths | lapses |
|-----------------------------------|---------|----------------|--------|--------|
| it was handed out                 |         | +1             |        |        |
| settled as a retry                | +1      |                |        | 0      |
| its executor died under it alone  |         |                | +1     |        |
| lost with others                  |         |                | (+1)   | +1     |
| released, deferred                |         |                |        |        |

A hand-out may be missing, when its worker died before it wrote it down or its answer was lost: some fault has to explain each
gap. A settlement whose answer was lost may have been made or not; both is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import DEAD_LETTER, Call, Life, read_lives, what_is_missing
from stem_chaos.history import History, Operation, Phase

__all__ = ["PROMISE", "check_counters", "deaths_of"]

PROMISE = "Every hand-out was counted once, and attempts, deaths and lapses only as what became of it says."


def check_counters(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    figures = {"deliveries": 0, "retries": 0, "deaths": 0, "unseen_deliveries": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            forgets_from = faults.forgets_from(life.since)
            rows = [each for each in life.by_count() if each.delivery_count and each.at < forgets_from]
            figures["deliveries"] += len(rows)
            figures["retries"] += sum(call.is_ok and call.verdict == "retry" for call in life.settlements)
            yield from _handed_out_twice(life, forgets_from)
            yield from _too_many_attempts(life, rows)
            if rows:
                missing = (rows[0].delivery_count or 1) - 1
                since = min((call.began for call in life.enqueues), default=rows[0].at)
                yield from _gap(history, life, faults, missing, since, rows[0], figures)
            for before, after in pairwise(rows):
                missing = _count(after) - _count(before) - 1
                yield from _gap(history, life, faults, missing, before.at, after, figures)
                figures["deaths"] += max(0, deaths_of(after) - deaths_of(before))
                yield from _moved(life, before, after)

    missing = what_is_missing(history)
    return conclude("counters", PROMISE, [] if missing else list(violations()), figures, missing)


def deaths_of(operation: Operation) -> int:
    """How many deaths a hand-out brought with it: its causes, or their number."""
    deaths = operation.detail.get("deaths") or 0
    return deaths if isinstance(deaths, int) else len(deaths)


def _count(delivery: Operation) -> int:
    return delivery.delivery_count or 0


def _handed_out_twice(life: Life, forgets_from: float) -> Iterator[Violation]:
    """A count has one lease, and a lease one count; else there are two copies of the task, or a hand-out was not counted."""
    lease_of: dict[int, str | None] = {}
    count_of: dict[str | None, int] = {}
    for delivery in life.deliveries:
        count = _count(delivery)
        if not count or delivery.at >= forgets_from:
            continue
        if lease_of.setdefault(count, delivery.lease) != delivery.lease:
            yield Violation(f"two hand-outs have the delivery count {count}: there are two copies", life.task_id, delivery.at)
        if count_of.setdefault(delivery.lease, count) != count:
            yield Violation(f"lease {delivery.lease} was handed out twice", life.task_id, delivery.at)


def _too_many_attempts(life: Life, rows: Sequence[Operation]) -> Iterator[Violation]:
    most = life.enqueued("max_retries")
    if most is not None and rows and (rows[-1].attempt or 0) > int(most) and not _is_replayed(life):
        text = f"was handed out for attempt {rows[-1].attempt}, and may be retried {most} times"
        yield Violation(text, life.task_id, rows[-1].at)


def _is_replayed(life: Life) -> bool:
    return any(call.is_ok and call.verdict == DEAD_LETTER for call in life.settlements)


def _gap(
    history: History,
    life: Life,
    faults: Faults,
    missing: int,
    since: float,
    after: Operation,
    figures: dict[str, int],
) -> Iterator[Violation]:
    if missing <= 0:
        return
    figures["unseen_deliveries"] += missing
    if not faults.any(since - history.facts.visibility_timeout, after.at):
        text = f"the delivery count is {after.delivery_count}, and {missing} hand-outs were seen by nobody, without a fault"
        yield Violation(text, life.task_id, after.at)


def _moved(life: Life, before: Operation, after: Operation) -> Iterator[Violation]:
    """What changed between two hand-outs, against what was settled in between."""
    between = [
        call
        for call in life.settlements
        if (count := life.count_of(call.invoked)) is None or _count(before) <= count < _count(after)
    ]
    if any(call.is_ok and call.is_final for call in between):
        return  # replayed; or a matter for the checker of ends
    retries = [call for call in between if call.verdict == "retry" and call.phase is not Phase.FAIL]
    grown = (after.attempt or 0) - (before.attempt or 0)
    died = deaths_of(after) - deaths_of(before)
    span = f"from delivery {_count(before)} to {_count(after)}"
    if grown > len(retries):
        yield Violation(f"attempt grew by {grown} {span}, with {len(retries)} retries", life.task_id, after.at)
    elif grown < sum(call.is_ok for call in retries):
        text = f"attempt changed by {grown} {span}, and {sum(call.is_ok for call in retries)} retries were accepted"
        yield Violation(text, life.task_id, after.at)
    if died < 0:
        yield Violation(f"{-died} deaths were forgotten {span}", life.task_id, after.at)
    elif died + max(0, grown) > _count(after) - _count(before):
        yield Violation(f"{died} deaths and {grown} attempts were counted {span}", life.task_id, after.at)
    settled = [call for call in between if call.is_ok]
    if len(settled) == 1 and _count(after) == _count(before) + 1:
        yield from _settled(life, settled[0], before, after)


def _settled(life: Life, call: Call, before: Operation, after: Operation) -> Iterator[Violation]:
    """The next hand-out carries what the settlement of the one before said. `deaths` is left out where they do not change."""
    said = call.get("deaths")
    wanted = deaths_of(before) if said is None else said if isinstance(said, int) else len(said)
    if deaths_of(after) != wanted:
        text = f"was settled as {call.verdict} with {wanted} deaths, and then handed out with {deaths_of(after)}"
        yield Violation(text, life.task_id, after.at)
    if call.verdict == "retry" and int(after.detail.get("lapses") or 0):
        yield Violation(f"a retry kept {after.detail['lapses']} lapses", life.task_id, after.at)
