"""No loss: what was accepted ends. Promises P1, P2 and P7 of the design.

An enqueue whose answer was lost may have added its task or not; where the task was handed out, it had. A server that may forget
what it acknowledged (`forgets` in a fault's detail: a failover without waiting for replicas) is asked for its losses apart, and
they break no promise of ours unless the enqueue had waited for the replicas (`is_replicated`).
"""

from __future__ import annotations

from collections.abc import Iterator

from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import FINAL_STATES, Life, read_lives
from stem_chaos.history import History, Phase

__all__ = ["PROMISE", "check_no_loss"]

_LAG = 1.0  # seconds that a replica is behind at most, while nothing holds it up
PROMISE = "Every task that was accepted has ended, and none that was refused has run."


def check_no_loss(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    figures = {"accepted": 0, "unknown": 0, "refused": 0, "ended": 0, "lost_by_server": 0}
    unseen: list[Life] = []
    waiting: list[Life] = []

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            if life.is_refused:
                figures["refused"] += 1
                if life.deliveries or life.runs:
                    yield Violation("was refused, and was handed out all the same", life.task_id, life.enqueues[0].began)
            elif life.enqueues:
                figures["accepted" if life.is_accepted else "unknown"] += 1
                if not (life.is_accepted or life.deliveries):
                    continue
                last = life.observations[-1] if life.observations else None
                state = None if last is None else last.detail.get("state")
                if state in FINAL_STATES:
                    figures["ended"] += 1
                elif last is None:
                    unseen.append(life)
                elif _is_waiting(life, last.at):
                    waiting.append(life)
                elif _may_be_forgotten(life, faults):
                    figures["lost_by_server"] += 1
                else:
                    yield Violation(
                        f"was accepted, and at the end is {state or 'not there'}; {_trace(life)}", life.task_id, last.at
                    )

    return conclude("no-loss", PROMISE, list(violations()), figures, _reason(unseen, waiting))


def _is_waiting(life: Life, seen_at: float) -> bool:
    """Whether it was not yet due when it was looked at last."""
    due = max((call.ended + float(call.get("delay") or 0.0) for call in life.enqueues if call.is_ok), default=0.0)
    for call in life.settlements:
        if call.phase is not Phase.FAIL and call.verdict in ("retry", "defer"):
            settled_at = call.began if call.answer is None else call.ended
            due = max(due, settled_at + float(call.get("delay") or 0.0))
    return due > seen_at


def _may_be_forgotten(life: Life, faults: Faults) -> bool:
    """Whether the server may have lost it: it was acknowledged while a fault of that kind was on, and by that server alone."""
    accepted = [call for call in life.enqueues if call.is_ok]
    return not any(call.get("is_replicated") for call in accepted) and any(
        window.forgets and all(window.begin - _LAG <= call.ended <= window.end for call in accepted) for window in faults.windows
    )


def _trace(life: Life) -> str:
    """How far it got."""
    if life.settlements:
        last = life.settlements[-1]
        return f"last settled as {last.verdict or 'unknown'} ({last.phase})"
    return f"started {len(life.runs)} times, never settled" if life.runs else f"handed out {len(life.deliveries)} times"


def _reason(unseen: list[Life], waiting: list[Life]) -> str | None:
    if unseen:
        return f"{len(unseen)} accepted tasks were not looked at in the end, first {unseen[0].task_id}"
    if waiting:
        return f"{len(waiting)} tasks were not yet due when they were looked at last, first {waiting[0].task_id}"
    return None
