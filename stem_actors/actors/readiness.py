"""Whether work can flow through a worker, and why not. Pure: a ping alone proves nothing, progress does."""

from __future__ import annotations

from dataclasses import dataclass

from stem_actors.actors.pool_report import PoolReport
from stem_actors.actors.vitals import Vitals

__all__ = ["NO_PROGRESS", "Judgement", "judge"]

NO_PROGRESS = 5.0
"""Seconds without a fetch, while there is credit, that make a worker unready."""
CURE_AFTER = 10.0
GIVE_UP_AFTER = 30.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reasons`: why no work flows, empty while it can. `cure`: an actor to restart. `is_hopeless`: replace the process."""

    reasons: tuple[str, ...] = ()
    cure: str | None = None
    is_hopeless: bool = False


def judge(
    report: PoolReport | None,
    report_age: float,
    vitals: Vitals,
    now: float,
    since: float,
    visibility_timeout: float,
    work_waits: bool,
) -> Judgement:
    """Look at what was last seen of each part.

    `since`: the start of this worker, or the end of a time in which its process stood still; what lies before it does not count.
    `work_waits`: the broker holds ready messages of this worker's queues.
    """
    if report is None and now - since <= NO_PROGRESS:
        return Judgement(("starting",))
    if report is None or report_age > NO_PROGRESS:
        age = now - since if report is None else report_age
        return Judgement((f"the executor pool has not answered for {age:.0f} s",), None, age > GIVE_UP_AFTER)
    if report.is_draining:
        return Judgement(("draining",))
    if report.unkillable and report.unkillable >= report.slots:
        return Judgement((f"{report.unkillable} executor(s) do not die of SIGKILL: they hang in the kernel",))
    if report.ready_executors == 0:
        return Judgement(("starting: no executor is ready",))
    reasons = [f"broker unreachable by the {actor}: {error}" for actor, error in sorted(vitals.broker_errors.copy().items())]
    unrenewed_for = now - max(vitals.renewed_at, since)
    if report.inflight and unrenewed_for > visibility_timeout * 2 / 3:
        reasons.append(f"leases have not been renewed for {unrenewed_for:.0f} s")
    if reasons:
        return Judgement(tuple(reasons))
    idle_for = now - max(vitals.received_at, since)
    if idle_for <= NO_PROGRESS:
        return Judgement()
    if report.credit > 0:
        return _stalled("the consumer fetches nothing", "consumer", idle_for)
    if work_waits and report.free_slots and not report.waiting:
        return _stalled("work waits, executors are free, and no credit is given", "executor_pool", idle_for)
    return Judgement()


def _stalled(what: str, actor: str, idle_for: float) -> Judgement:
    cure = actor if idle_for > CURE_AFTER else None
    return Judgement((f"no progress for {idle_for:.0f} s: {what}",), cure, idle_for > GIVE_UP_AFTER)
