"""The nemesis: it follows its plan, heals what it began, and writes both down; and crashes at fault points, with the probe."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stem_chaos.cluster import Cluster, Layout
from stem_chaos.history import History, Operation, Phase, Recorder, RunFacts, Verb, read_history, write_facts
from stem_chaos.nemesis.all import FAULTS
from stem_chaos.nemesis.fault import CannotInject, Fault, Injection
from stem_chaos.nemesis.nemesis import Nemesis
from stem_chaos.nemesis.schedule import Planned
from tests.fixtures.clusters import LONG, await_results, enqueue, running_cluster
from tests.fixtures.waiting import SOON, until

FACTS = RunFacts("test", "none", 1, 3.0, 5, 1, 1, 1, 0.0)


@dataclass
class Noted:
    """A fault that notes what is asked of it."""

    name: str = "noted"
    scope: str = "noted"
    lasts: float = 0.0
    busy: int = 0
    cannot: bool = False
    breaks: bool = False
    seen: list[str] = field(default_factory=list)

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        self.seen.append("begin")
        if self.cannot:
            raise CannotInject("there is none of that here")
        if self.breaks:
            raise ZeroDivisionError
        if self.busy:
            self.busy -= 1
            return None
        return Injection(f"target-{chance.randrange(1000)}", {"pids": [1]})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        self.seen.append(f"heal {injection.target}")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """One that is never started: these faults touch nothing."""
    return Cluster(tmp_path, "sqlite", Layout("none:app"))


def run(cluster: Cluster, plan: list[Planned], *faults: Fault) -> tuple[Nemesis, list[Operation]]:
    """Follow a plan to its end, and what was written down."""
    nemesis = start(cluster, plan, *faults)
    assert nemesis.is_through(SOON)
    nemesis.stop()
    return nemesis, list(history(cluster).of(Verb.FAULT))


def start(cluster: Cluster, plan: list[Planned], *faults: Fault) -> Nemesis:
    nemesis = Nemesis(cluster, plan, Recorder(cluster.directory, "nemesis"), {fault.name: fault for fault in faults})
    nemesis.start()
    return nemesis


def history(cluster: Cluster) -> History:
    write_facts(cluster.directory, FACTS)
    return read_history(cluster.directory)


def test_a_fault_is_written_down_before_it_begins_and_when_it_is_over(cluster: Cluster) -> None:
    fault = Noted(lasts=0.05)
    nemesis, written = run(cluster, [Planned(0.0, "noted", 0.05, "seed")], fault)
    assert [each.phase for each in written] == [Phase.INVOKE, Phase.OK]
    begun, over = written
    assert begun.call == over.call
    assert begun.detail == {"fault": "noted"}
    target = f"target-{random.Random('seed').randrange(1000)}"
    assert over.detail == {"fault": "noted", "target": target, "pids": [1]}
    assert over.at - begun.at >= 0.05
    assert fault.seen == ["begin", f"heal {target}"]
    assert nemesis.done == {"noted": 1}
    assert nemesis.last_end is not None
    assert nemesis.last_end >= over.at


def test_faults_begin_in_the_order_of_the_plan_and_overlap(cluster: Cluster) -> None:
    long, short = Noted("long", lasts=0.2), Noted("short")
    plan = [Planned(0.0, "long", 0.2, "a"), Planned(0.05, "short", 0.0, "b")]
    _, written = run(cluster, plan, long, short)
    told = [(each.detail["fault"], each.phase) for each in written]
    assert told == [("long", Phase.INVOKE), ("short", Phase.INVOKE), ("short", Phase.OK), ("long", Phase.OK)]


def test_a_fault_waits_until_one_of_its_scope_is_healed_that_came_late(cluster: Cluster) -> None:
    late, punctual = Noted("late", lasts=0.2, busy=1), Noted("punctual", lasts=0.2)
    plan = [Planned(0.0, "late", 0.2, "a"), Planned(0.3, "punctual", 0.2, "b")]  # at 0.25, when it is tried again, until 0.45
    _, written = run(cluster, plan, late, punctual)
    told = [(each.detail["fault"], each.phase) for each in written][2:]
    assert told == [("late", Phase.INVOKE), ("late", Phase.OK), ("punctual", Phase.INVOKE), ("punctual", Phase.OK)]


def test_a_stopped_nemesis_begins_no_more_and_heals_what_is_on(cluster: Cluster) -> None:
    fault = Noted(lasts=600.0)
    nemesis = start(cluster, [Planned(0.0, "noted", 600.0, "a"), Planned(0.3, "noted", 600.0, "b")], fault)
    until(lambda: len(nemesis.active) == 1, SOON, "a fault")
    assert next(iter(nemesis.active.values())).startswith("noted: target-")
    nemesis.stop()
    assert [word.partition(" ")[0] for word in fault.seen] == ["begin", "heal"]
    assert nemesis.active == {}
    assert [each.phase for each in history(cluster).of(Verb.FAULT)] == [Phase.INVOKE, Phase.OK]


def test_a_fault_that_finds_nothing_right_now_is_tried_again(cluster: Cluster) -> None:
    fault = Noted(busy=2)
    nemesis, written = run(cluster, [Planned(0.0, "noted", 0.0, "a")], fault)
    phases = [each.phase for each in written]
    assert phases == [Phase.INVOKE, Phase.FAIL, Phase.INVOKE, Phase.FAIL, Phase.INVOKE, Phase.OK]
    assert nemesis.done == {"noted": 1}


def test_a_fault_that_is_impossible_is_tried_once_and_its_reason_kept(cluster: Cluster) -> None:
    fault = Noted(cannot=True)
    nemesis, written = run(cluster, [Planned(0.0, "noted", 0.0, "a"), Planned(0.0, "noted", 0.0, "b")], fault)
    assert fault.seen == ["begin"]
    assert nemesis.impossible == {"noted": "there is none of that here"}
    assert [each.phase for each in written] == [Phase.INVOKE, Phase.FAIL]
    assert nemesis.broken is None


def test_an_error_in_a_fault_ends_the_nemesis_and_is_kept_and_what_is_on_is_healed(cluster: Cluster) -> None:
    lasting, broken = Noted("lasting", lasts=600.0), Noted("broken", breaks=True)
    plan = [Planned(0.0, "lasting", 600.0, "a"), Planned(0.01, "broken", 0.0, "b")]
    nemesis, _ = run(cluster, plan, lasting, broken)
    assert isinstance(nemesis.broken, ZeroDivisionError)
    assert lasting.seen[-1].startswith("heal")


# ---------------------------------------------------------------- with the probe


def deaths_at_points(cluster: Cluster) -> list[Operation]:
    return [each for each in history(cluster).of(Verb.FAULT, phase=Phase.INVOKE) if each.detail["fault"] == "point"]


def test_a_process_that_reaches_an_armed_point_dies_there_and_writes_down_who_it_was(tmp_path: Path) -> None:
    with running_cluster(tmp_path, is_recorded=True, workers=1, concurrency=2) as cluster:
        for number, point in enumerate(("fetch.before", "settle.after", "start.after", "result.before", "sweep.after")):
            fault = FAULTS[f"crash-point/{point}"]
            injection = fault.begin(cluster, random.Random(1))
            assert injection is not None
            handles = enqueue(cluster, 6, seconds=0.02)
            until(lambda: len(deaths_at_points(cluster)) > number, SOON, f"a death at {point}")  # noqa: B023  # called here and now
            await_results(handles)
            fault.heal(cluster, injection)
            deaths = deaths_at_points(cluster)
            assert [death.detail["target"] for death in deaths][number:] == [point]
            assert deaths[-1].pid in deaths[-1].detail["pids"]


def test_a_point_that_nobody_reached_is_disarmed_when_it_is_healed(tmp_path: Path) -> None:
    with running_cluster(tmp_path, is_recorded=True, workers=1, concurrency=1) as cluster:
        (worker,) = cluster.workers()
        fault = FAULTS["crash-point/start.before"]
        injection = fault.begin(cluster, random.Random(1))
        assert injection is not None
        fault.heal(cluster, injection)
        await_results(enqueue(cluster, 3))
        assert [each.executors for each in cluster.workers()] == [worker.executors]


def test_the_nemesis_injects_a_mixed_plan_into_a_real_cluster_and_work_goes_on(tmp_path: Path) -> None:
    plan = [
        Planned(0.0, "kill-executor", 0.0, "1"),
        Planned(0.2, "pause-worker", 1.0, "2"),
        Planned(0.5, "lock-database", 0.3, "3"),
        Planned(0.6, "crash-point", 0.5, "4"),
        Planned(1.2, "kill-node", 0.1, "5"),
    ]
    with running_cluster(tmp_path, is_recorded=True, workers=2, concurrency=1) as cluster:
        handles = enqueue(cluster, 100, seconds=0.02)
        nemesis = start(cluster, plan, *FAULTS.values())

        def is_over() -> bool:
            cluster.keep_alive()
            return nemesis.is_through()

        until(is_over, LONG, "the end of the plan")
        nemesis.stop()
        assert nemesis.broken is None
        assert nemesis.impossible == {}
        assert nemesis.done == {planned.fault: 1 for planned in plan}
        cluster.wait_ready()
        await_results(handles)
        assert cluster.stop() == [0]
