"""Suspects run one at a time in each worker, so those that wait for one another belong to whoever is idle."""

from __future__ import annotations

from collections import Counter

from stem_actors.model.outcome import Lapsed, Release
from tests.fixtures.fleet import Fleet
from tests.fixtures.hand_worker import settle, take
from tests.fixtures.waiting import Journal, until

SUSPECT_AFTER = 2  # lapses


def test_suspects_that_wait_for_another_go_to_a_worker_that_is_idle(processes: Fleet, journal: Journal) -> None:
    """One worker has just run so many short tasks that it expects all to be short, and takes every suspect there is."""
    suspects = [processes.enqueue("nap", journal.path, f"s{n}", 0.5) for n in range(24)]
    for _ in range(SUSPECT_AFTER):
        for delivery in [take(processes.app) for _ in suspects]:
            settle(processes.app, delivery, Lapsed("killed"), Release())
    for n in range(600):
        processes.enqueue("note", journal.path, f"n{n}", priority=9)
    processes.start_process()
    until(lambda: "s0" in journal.words(), what="the first suspect to run")
    processes.start_process()
    runs = Counter(handle.get(30) for handle in suspects)
    ours = processes.workers[1].reports.executors
    elsewhere = sum(count for pid, count in runs.items() if pid in ours)
    assert elsewhere >= 2, f"{elsewhere} of {len(suspects)} were run by the worker that was idle"
