"""Suspects run one at a time in each worker, so those that wait for one another belong to whoever is idle."""

from __future__ import annotations

import signal
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


def test_what_waited_in_a_worker_that_was_killed_is_no_nearer_to_being_a_suspect(processes: Fleet, journal: Journal) -> None:
    """All have been lost before; one runs and the others wait when their worker is killed."""
    processes.set(visibility_timeout=1.0)
    naps = [processes.enqueue("nap", journal.path, f"n{n}", 60.0) for n in range(3)]
    for delivery in [take(processes.app) for _ in naps]:
        settle(processes.app, delivery, Lapsed("killed"), Release())
    worker = processes.start_process(concurrency=1)
    until(lambda: journal.words(), what="the first to run")
    until(lambda: worker.reports.snapshot["inflight"] == 3, what="the others to wait")
    worker.send(signal.SIGKILL)
    broker = processes.app.stores.broker
    until(lambda: broker.sweep() is not None and broker.depths(["default"])[0].inflight == 0, what="their leases to lapse")
    lapses = {delivery.envelope.args[1]: delivery.state.lapses for delivery in [take(processes.app) for _ in naps]}
    started = list(journal.words())
    assert len(started) == 1
    assert lapses == {word: 2 if f"{word}-starts" in started else 1 for word in ("n0", "n1", "n2")}
