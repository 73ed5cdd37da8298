"""Terminal exactly once: an end is the end. Promises P3 and P6 of the design.

What counts is the broker's own order, the delivery count, and not when somebody wrote it down. A replay begins anew, so
everything is judged for each `replay_count`, where operations name one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from stem_chaos.checker.faults import read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.lives import FINAL_STATES, Call, Life, read_lives
from stem_chaos.history import History, Operation

__all__ = ["PROMISE", "check_terminal_once"]

PROMISE = "A task ends once: one settlement ends it, nothing comes after, and its result does not change."


def check_terminal_once(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    figures = {"ended": 0, "seen_twice": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            forgets_from = faults.forgets_from(life.since)
            ends = [call for call in life.settlements if call.is_ok and call.is_final and call.began < forgets_from]
            figures["ended"] += bool(ends)
            yield from _several_ends(life, ends)
            yield from _handed_out_again(life, ends, forgets_from)
            seen = [each for each in life.observations if each.at < forgets_from]
            figures["seen_twice"] += len(seen) > 1
            yield from _changes(life, seen)
            yield from _other_record(life, ends, seen)

    return conclude("terminal-once", PROMISE, list(violations()), figures)


def _replay_of(operation: Operation) -> int:
    return int(operation.detail.get("replay_count") or 0)


def _several_ends(life: Life, ends: list[Call]) -> Iterator[Violation]:
    by_replay: Mapping[int, list[Call]] = defaultdict(list)
    for call in ends:
        by_replay[_replay_of(call.invoked)].append(call)
    for calls in by_replay.values():
        if len(calls) > 1:
            told = ", ".join(f"{call.verdict} of delivery {life.count_of(call.invoked)}" for call in calls)
            yield Violation(f"was ended {len(calls)} times: {told}", life.task_id, calls[1].began)


def _handed_out_again(life: Life, ends: list[Call], forgets_from: float) -> Iterator[Violation]:
    for call in ends:
        count = life.count_of(call.invoked)
        if count is None:
            continue
        for delivery in life.deliveries:
            if (
                delivery.delivery_count is not None
                and delivery.delivery_count > count
                and delivery.at < forgets_from
                and _replay_of(delivery) == _replay_of(call.invoked)
            ):
                text = f"delivery {count} ended it, and it was handed out again as delivery {delivery.delivery_count}"
                yield Violation(text, life.task_id, delivery.at)
                return


def _changes(life: Life, seen: list[Operation]) -> Iterator[Violation]:
    final: Operation | None = None
    for observation in seen:
        if final is not None and _replay_of(observation) == _replay_of(final) and _shown(observation) != _shown(final):
            yield Violation(f"was {_told(final)}, and then {_told(observation)}", life.task_id, observation.at)
        if observation.detail.get("state") in FINAL_STATES:
            final = observation


def _other_record(life: Life, ends: list[Call], seen: list[Operation]) -> Iterator[Violation]:
    """The record says something else than the settlement that ended the task and stored it."""
    if len(ends) != 1 or not seen or ends[0].get("state") not in FINAL_STATES:
        return
    state, last = ends[0].get("state"), seen[-1]
    if last.at > ends[0].ended and _replay_of(last) == _replay_of(ends[0].invoked) and last.detail.get("state") != state:
        yield Violation(f"was settled as {state}, and its record says {last.detail.get('state')}", life.task_id, last.at)


def _shown(observation: Operation) -> tuple[object, ...]:
    return tuple(observation.detail.get(name) for name in ("state", "result", "error"))


def _told(observation: Operation) -> str:
    state, result, error = _shown(observation)
    value = error if error is not None else result
    return str(state) if value is None else f"{state} ({value})"
