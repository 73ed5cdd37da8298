"""Poison contained: a task that kills its process is set aside after so many deaths, and nothing beside it is charged. Promise
P5.

A death that another task is charged with has to be its own: its run was lost with the executor, and it was alone there or
marked as a suspect (after two lapses). It is certainly not where that executor went on to write things down, unless a fault had
hit the worker: a suspect is charged also when its lease lapses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from stem_chaos.checker.counters import deaths_of
from stem_chaos.checker.faults import Faults, read_faults
from stem_chaos.checker.finding import Finding, Violation, conclude
from stem_chaos.checker.holders import Lost, deliveries_of, holders_of, visibility_of
from stem_chaos.checker.lives import FINAL_STATES, Life, Run, read_lives
from stem_chaos.history import History, Operation

__all__ = ["PROMISE", "check_poison"]

PROMISE = "What kills its process was set aside after as many deaths as are allowed, and no other task was charged for it."
_SUSPECT_AFTER = 2
_REPORTED = 1.0  # seconds after which an outcome has left its executor


def check_poison(history: History) -> Finding:
    lives, faults = read_lives(history), read_faults(history)
    lost = Lost(history, lives)
    figures = {"poison": 0, "deaths": 0, "charged_others": 0}

    def violations() -> Iterator[Violation]:
        for life in lives.values():
            if life.is_poison:
                figures["poison"] += 1
                figures["deaths"] += sum(run.end is None for run in life.runs)
                yield from _not_set_aside(history, life)
                continue
            rows = life.by_count()
            for before, after in pairwise(rows):
                if deaths_of(after) > deaths_of(before):
                    figures["charged_others"] += 1
                    yield from _charged(history, life, before, after, faults, lost)

    return conclude("poison", PROMISE, list(violations()), figures)


def _not_set_aside(history: History, life: Life) -> Iterator[Violation]:
    last = life.observations[-1] if life.observations else None
    state = None if last is None else last.detail.get("state")
    if last is None or state not in FINAL_STATES:
        return  # a matter for the checker of losses
    reason = last.detail.get("dead_letter") or last.detail.get("reason")
    if state != "failed" or reason not in (None, "poison"):
        yield Violation(f"kills its process, and ended as {state} ({reason or 'no dead letter'})", life.task_id, last.at)
    for call in life.settlements:
        deaths = call.get("deaths")
        if call.is_ok and call.get("reason") == "poison" and deaths is not None:
            count = deaths if isinstance(deaths, int) else len(deaths)
            if count != history.facts.max_deliveries:
                text = f"was set aside after {count} deaths, and {history.facts.max_deliveries} are allowed"
                yield Violation(text, life.task_id, call.began)


def _charged(
    history: History, life: Life, before: Operation, after: Operation, faults: Faults, lost: Lost
) -> Iterator[Violation]:
    for run in life.runs:
        if not before.at <= run.began < after.at or before not in deliveries_of(life, run):
            continue
        slack = visibility_of(history, [before]) + 1.0
        worker = holders_of(life, run) - {run.start.pid}
        if faults.hit(worker, run.began - slack, after.at):
            continue
        if text := _innocence(life, run, before, after, lost):
            yield Violation(f"was charged a death with delivery {after.delivery_count}, and {text}", life.task_id, after.at)


def _innocence(life: Life, run: Run, before: Operation, after: Operation, lost: Lost) -> str | None:
    """Why a run certainly is not the one to blame."""
    pid = run.start.pid
    if run.end is not None and lost.has_words(pid, run.ended + _REPORTED, after.at):
        return f"its run in process {pid} had ended, and that process went on"
    beside: Mapping[str, Run] = {
        other.task_id: theirs for other, theirs in lost.beside(life, run) if other.task_id != run.start.task_id
    }
    if run.end is None and beside and int(before.detail.get("lapses") or 0) < _SUSPECT_AFTER:
        return f"it shared process {pid} with {len(beside)} others that were lost, such as {next(iter(beside))}"
    return None
