"""The demo's book-keeping, done without trusting Stem: what was asked for, what came of it, what was run how often and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from kills import Kill
from runs import Run
from tasks import Facts

from stem_actors import Handle, Stem, TaskState

__all__ = ["Check", "Reruns", "account", "check_queue", "check_results", "check_runs", "collect"]

_UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, how it came out, and the evidence when it does not."""

    claim: str
    outcome: str
    problems: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        return not self.problems


def collect(handles: Mapping[Handle[Facts], str]) -> tuple[dict[str, list[Facts]], Check]:
    """The results by path, of the tasks that `handles` stand for; and whether every task succeeded."""
    results: dict[str, list[Facts]] = {path: [] for path in handles.values()}
    problems = []
    for handle, path in handles.items():
        state = handle.status().state
        if state is TaskState.SUCCEEDED:
            results[path].append(handle.get())
        else:
            problems.append(f"task {handle.id} ({path}) is {state.value}")
    return results, Check("every task succeeded", f"{len(handles) - len(problems):,} of {len(handles):,}", problems)


def check_results(results: Mapping[str, Sequence[Facts]], tasks_per_file: int) -> Check:
    """Hash every file here and now, and compare with what its tasks say they have read."""
    problems = []
    for path, found in results.items():
        wanted = [(path, hashlib.sha256(Path(path).read_bytes()).hexdigest())] * tasks_per_file
        if [(each["path"], each["sha256"]) for each in found] != wanted:
            problems.append(f"{path}: {len(found)} results, not all of them with the file's sha256 {wanted[0][1]}")
    good = len(results) - len(problems)
    return Check("each result has the sha256 of its file", f"{good:,} of {len(results):,} files", problems)


def check_queue(app: Stem) -> Check:
    """Nothing waits, nothing is held, nothing was given up."""
    depths = app.stores.broker.depths()
    left, dead = sum(depth.pending + depth.inflight + depth.delayed for depth in depths), sum(depth.dead for depth in depths)
    problems = [f"{depth.queue}: {depth}" for depth in depths if depth.pending + depth.inflight + depth.delayed + depth.dead]
    return Check("no task is left or dead-lettered", f"{left} left, {dead} dead", problems)


@dataclass(frozen=True, slots=True)
class Reruns:
    """All runs, how many tasks were run more than once, and how many runs each kill made void (`causes`, by its name)."""

    runs: int
    tasks: int
    causes: Counter[str]
    problems: Sequence[str]


def account(runs: Mapping[str, Sequence[Run]], kills: Sequence[Kill]) -> Reruns:
    """Find for every run that was followed by another the kill that made it void."""
    causes: Counter[str] = Counter()
    problems = []
    for task_id, tries in runs.items():
        for run, again in pairwise(tries):
            cause = next((kill.name for kill in kills if _explains(kill, run, again)), _UNEXPLAINED)
            causes[cause] += 1
            if cause is _UNEXPLAINED:
                problems.append(f"task {task_id} was run by {run.pid}, and {again.at - run.at:.2f} s later by {again.pid}: why?")
    several = sum(len(tries) > 1 for tries in runs.values())
    return Reruns(sum(map(len, runs.values())), several, causes, problems)


def _explains(kill: Kill, run: Run, again: Run) -> bool:
    """The kill struck the process of the first run, or the worker around it, after that run had begun and before the next did."""
    return run.pid in kill.pids and run.at <= kill.ended and again.at >= kill.began


def check_runs(handles: Mapping[Handle[Facts], str], runs: Mapping[str, Sequence[Run]], reruns: Reruns) -> Check:
    """Every task was run, and none twice without a kill that explains it."""
    ids = {handle.id for handle in handles}
    problems = [f"task {task_id} was never run" for task_id in ids - runs.keys()]
    problems += [f"something was run that nobody enqueued: {task_id}" for task_id in runs.keys() - ids]
    outcome = f"{reruns.runs:,} runs, {reruns.tasks} tasks twice, {len(reruns.problems)} unexplained"
    return Check("only a kill made a task run twice", outcome, [*problems, *reruns.problems])
