"""What checkers read a history into: faults, calm time, the lives of tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from stem_chaos.checker.all import CHECKERS, check_all
from stem_chaos.checker.faults import Calm, Window, read_faults
from stem_chaos.checker.finding import KEPT, Validity, Violation, conclude
from stem_chaos.checker.lives import read_lives
from stem_chaos.history import History, Operation, Phase, Verb
from tests.chaos.histories import FACTS, Story


def test_a_fault_is_what_both_of_its_operations_say() -> None:
    story = Story()
    story.fault("crash-point", 1.0, 2.0, pids=[7])
    *_, over = story.operations
    story.operations[-1] = replace(over, detail={"fault": "crash-point", "target": "settle.before", "incarnations": ["w1"]})
    (window,) = read_faults(story.history()).windows
    assert window == Window("crash-point", "settle.before", 1.0, 2.0, frozenset({7}), frozenset({"w1"}))


def test_faults_are_found_by_whom_they_hit_and_when() -> None:
    story = Story()
    story.fault("pause-worker", 1.0, 3.0, pids=[7], incarnations=["w1"])
    story.fault("freeze-broker", 10.0, 12.0, everything=True)
    story.fault("fill-disk", 20.0, phase=Phase.FAIL, everything=True)
    faults = read_faults(story.history())
    assert faults.hit([7], 2.0, 2.5)
    assert faults.hit(["w1"], 0.0, 1.0)
    assert not faults.hit(["w2"], 0.0, 9.0)
    assert not faults.hit([7], 3.1, 9.0)
    assert faults.hit([], 11.0, 30.0)
    assert not faults.any(19.0, 30.0)


def test_a_long_fault_is_found_behind_shorter_ones_that_began_later() -> None:
    story = Story()
    story.fault("fill-memory", 1.0, 50.0, everything=True)
    for at in range(2, 20):
        story.fault("kill-worker", float(at), incarnations=["w1"])
    faults = read_faults(story.history())
    assert faults.any(40.0, 41.0)
    assert faults.hit([], 40.0, 41.0)


def test_calm_time_leaves_out_faults_and_what_comes_after_them() -> None:
    calm = Calm([Window("a", "", 10.0, 20.0), Window("b", "", 15.0, 22.0), Window("c", "", 50.0, 51.0)], recovery=3.0)
    assert calm.between(0.0, 10.0) == 10.0
    assert calm.between(0.0, 30.0) == pytest.approx(15.0)
    assert calm.between(12.0, 24.0) == 0.0
    assert calm.between(0.0, 60.0) == pytest.approx(60.0 - 15.0 - 4.0)
    assert calm.after(0.0, 5.0) == 5.0
    assert calm.after(5.0, 10.0) == pytest.approx(30.0)
    assert calm.after(12.0, 1.0) == pytest.approx(26.0)
    assert calm.after(100.0, 1.0) == 101.0


@pytest.mark.parametrize("since", [0.0, 5.0, 11.0, 24.9, 40.0, 52.0])
def test_the_moment_after_so_much_calm_time_has_that_much_before_it(since: float) -> None:
    calm = Calm([Window("a", "", 10.0, 20.0), Window("c", "", 50.0, 51.0)], recovery=5.0)
    for seconds in (0.5, 4.0, 17.0, 60.0):
        assert calm.between(since, calm.after(since, seconds)) == pytest.approx(seconds)


def test_an_answer_belongs_to_its_invocation() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.settle("t1", 2.0, "release", phase=None)
    story.settle("t1", 3.0, "ack", phase=Phase.OK, ended=3.5)
    unanswered, answered = read_lives(story.history())["t1"].settlements
    assert unanswered.phase is Phase.INFO
    assert unanswered.ended == float("inf")
    assert (answered.verdict, answered.is_ok, answered.began, answered.ended) == ("ack", True, 3.0, 3.5)


def test_a_batch_may_share_its_number_and_be_answered_at_once_or_one_by_one() -> None:
    number = count(1)

    def operation(phase: Phase, task: str | None, call: int) -> Operation:
        at = float(next(number))
        return Operation(Verb.SETTLE, phase, call, "w1", 1, at, at, task, lease=task)

    operations = [
        operation(Phase.INVOKE, "t1", 1),
        operation(Phase.INVOKE, "t2", 1),
        operation(Phase.FAIL, "t2", 1),
        operation(Phase.OK, "t1", 1),
        operation(Phase.INVOKE, "t1", 2),
        operation(Phase.INVOKE, "t2", 2),
        operation(Phase.INFO, None, 2),
    ]
    lives = read_lives(History(FACTS, operations))
    assert [call.phase for call in lives["t1"].settlements] == [Phase.OK, Phase.INFO]
    assert [call.phase for call in lives["t2"].settlements] == [Phase.FAIL, Phase.INFO]


def test_runs_that_nobody_saw_leave_have_no_end() -> None:
    story = Story()
    story.start("t1", 1.0, "w1/0")
    story.start("t1", 2.0, "w1/1")
    story.end("t1", 3.0, "w1/1")
    lost, ended = read_lives(story.history())["t1"].runs
    assert lost.end is None
    assert ended.ended == 3.0


def test_a_history_is_read_once_for_all_checkers() -> None:
    story = Story()
    story.life("t1", 0.0)
    history, other = story.history(), story.history()
    assert read_lives(history) is read_lives(history)
    assert read_lives(other) is not read_lives(history)


def test_an_empty_history_breaks_no_promise() -> None:
    findings = check_all(Story().history())
    assert [finding.checker for finding in findings if finding.validity is Validity.INVALID] == []


def test_every_checker_has_a_name_of_its_own_and_says_what_it_checks() -> None:
    findings = check_all(Story().history(), [lambda history: conclude("mine", "Mine.", [], {})])
    assert len({finding.checker for finding in findings}) == len(CHECKERS) + 1
    assert all(finding.promise.endswith(".") for finding in findings)


def test_a_finding_lists_the_first_violations_and_counts_them_all() -> None:
    found = [Violation("again", at=float(-at)) for at in range(KEPT + 10)]
    finding = conclude("mine", "Mine.", found, {}, "it would be unknown otherwise")
    assert finding.validity is Validity.INVALID
    assert len(finding.violations) == KEPT
    assert finding.violations[0].at == float(-KEPT - 9)
    assert finding.figures == {"violations": KEPT + 10}
    assert finding.reason is None


def test_a_server_forgets_only_what_it_had_before() -> None:
    story = Story()
    story.fault("fail-over", 5.0, 8.0, everything=True, forgets=True)
    story.fault("fail-over", 15.0, 18.0, everything=True, forgets=True)
    faults = read_faults(story.history())
    assert [faults.forgets_from(since) for since in (0.0, 7.0, 9.0, 19.0)] == [5.0, 5.0, 15.0, float("inf")]
