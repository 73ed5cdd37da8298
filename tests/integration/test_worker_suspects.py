"""What was lost with others runs alone, and suspects one at a time: those that wait for one another belong to whoever is idle."""

from __future__ import annotations

import signal
from collections import Counter

from stem_actors import Handle
from stem_actors.model.outcome import Lapsed, Release
from tests.fixtures.fleet import Fleet
from tests.fixtures.hand_worker import settle, take
from tests.fixtures.waiting import Journal, until

SUSPECT_AFTER = 2  # lapses


def test_suspects_that_wait_for_another_go_to_a_worker_that_is_idle(processes: Fleet, journal: Journal) -> None:
    """One worker has just run so many short tasks that it expects all to be short, and takes every suspect there is."""
    suspects = [processes.enqueue("nap", journal.path, f"s{n}", 0.5) for n in range(14)]
    lose(processes, len(suspects), SUSPECT_AFTER)
    for n in range(600):
        processes.enqueue("note", journal.path, f"n{n}", priority=9)
    assert run_by_the_worker_that_is_idle(processes, journal, "s", suspects) >= 2


def test_coroutines_that_wait_to_run_alone_go_to_a_worker_that_is_idle(processes: Fleet, journal: Journal) -> None:
    """One worker holds all of them, since coroutines seldom wait for one another; but these were lost together."""
    processes.set(concurrency=1)
    naps = [processes.enqueue("anap", journal.path, f"a{n}", 0.6) for n in range(12)]
    lose(processes, len(naps), 1)
    assert run_by_the_worker_that_is_idle(processes, journal, "a", naps) >= 2


def lose(processes: Fleet, tasks: int, times: int) -> None:
    """Let a worker be lost with all of these."""
    for _ in range(times):
        for delivery in [take(processes.app) for _ in range(tasks)]:
            settle(processes.app, delivery, Lapsed("killed"), Release())


def run_by_the_worker_that_is_idle(processes: Fleet, journal: Journal, prefix: str, tasks: list[Handle[int]]) -> int:
    """How many of the tasks, each of which tells its process, a second worker runs that starts when the first has them all."""
    processes.start_process()
    until(lambda: any(word.startswith(prefix) for word in journal.words()), what="the first to run")
    idle = processes.start_process()
    runs = Counter(handle.get(30) for handle in tasks)
    return sum(count for pid, count in runs.items() if pid in idle.reports.executors)


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
