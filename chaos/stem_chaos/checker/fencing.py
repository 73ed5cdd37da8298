"""Fencing: only the holder of the current lease changes a task. Promise P3 of the design.

The broker did what was asked somewhere between a call's invocation and its answer, and it handed out a delivery before that was
written down. So a stale holder was certainly let in only where its whole call lies after a newer delivery was received.
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import Call, Life, read_lives
from stem_chaos.history import History

__all__ = ["PROMISE", "check_fencing"]

PROMISE = "Only the holder of a task's current lease has settled or renewed it."


def check_fencing(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    figures = {"settled": 0, "renewed": 0, "refused": 0}
    unexplained: list[str] = []

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            for name, calls in (("settled", life.settlements), ("renewed", life.renewals)):
                for call in calls:
                    figures["refused"] += str(call.get("answer", "")) == "stale"
                    if call.is_ok:
                        figures[name] += 1
                        if call.began < faults.forgets_from(life.since):
                            yield from _stale(life, call, name)
                            yield from _of_another(life, call, name)
                        if _is_unexplained(life, call, faults):
                            unexplained.append(life.task_id)

    found = list(violations())
    reason = f"{len(unexplained)} settlements are of deliveries that nobody was seen to receive" if unexplained else None
    return conclude("fencing", PROMISE, found, figures, reason)


def _stale(life: Life, call: Call, name: str) -> Iterator[Violation]:
    count = life.count_of(call.invoked)
    if count is None:
        return
    newer = [each for each in life.deliveries if (each.delivery_count or 0) > count and each.at < call.began]
    if newer:
        text = (
            f"{call.invoked.process} {name} delivery {count} {call.began - newer[0].at:.3f} s after {newer[0].process} "
            f"had received delivery {newer[0].delivery_count}"
        )
        yield Violation(text, life.task_id, call.began)


def _of_another(life: Life, call: Call, name: str) -> Iterator[Violation]:
    holder = call.invoked.incarnation
    owners = {each.incarnation for each in life.deliveries if each.lease == call.invoked.lease and each.incarnation is not None}
    if holder is not None and owners and holder not in owners:
        yield Violation(f"{holder} {name} a delivery that was handed out to {owners.pop()}", life.task_id, call.began)


def _is_unexplained(life: Life, call: Call, faults: Faults) -> bool:
    """Whether it ended a delivery that was never written down, in a process that no fault had kept from doing so.

    What is only released may be what a lost reply had left with its worker.
    """
    if call.verdict in ("", "release") or life.delivery_of(call.invoked) is not None:
        return False
    holders = (call.invoked.pid, call.invoked.incarnation or "")
    return not faults.hit(holders, 0.0, call.began)
