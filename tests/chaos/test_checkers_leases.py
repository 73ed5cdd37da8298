"""Checkers of who holds a task, and when it goes on: fencing, duplicates, recovery."""

from __future__ import annotations

import pytest

from stem_chaos.checker.duplicates import check_duplicates
from stem_chaos.checker.fencing import check_fencing
from stem_chaos.checker.finding import Validity
from stem_chaos.checker.recovery import check_recovery
from stem_chaos.history import Phase
from tests.chaos.histories import VISIBILITY, Story, pid_of

# ---------------------------------------------------------------- fencing


def story_of_two_holders() -> Story:
    """`w1` holds it, and from second 20 on `w2`."""
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0, count=1, worker="w1")
    story.deliver("t1", 20.0, count=2, worker="w2")
    return story


def test_the_current_holder_settles_and_renews() -> None:
    story = story_of_two_holders()
    story.renew("t1", 15.0, count=1, worker="w1")
    story.renew("t1", 25.0, count=2, worker="w2")
    story.settle("t1", 26.0, count=2, worker="w2")
    finding = check_fencing(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures == {"settled": 1, "renewed": 2, "refused": 0}


def test_a_stale_holder_that_settles_is_found() -> None:
    story = story_of_two_holders()
    story.settle("t1", 21.0, count=1, worker="w1")
    finding = check_fencing(story.history())
    assert finding.validity is Validity.INVALID
    assert finding.violations[0].text == "w1 settled delivery 1 1.000 s after w2 had received delivery 2"


def test_a_stale_holder_that_renews_is_found() -> None:
    story = story_of_two_holders()
    story.renew("t1", 21.0, count=1, worker="w1")
    assert check_fencing(story.history()).validity is Validity.INVALID


def test_a_stale_holder_that_is_refused_is_well() -> None:
    story = story_of_two_holders()
    story.settle("t1", 21.0, count=1, worker="w1", phase=Phase.FAIL)
    story.settle("t1", 22.0, count=1, worker="w1", phase=Phase.INFO)
    finding = check_fencing(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["refused"] == 1


def test_a_settlement_asked_for_before_the_next_hand_out_was_received_may_have_been_first() -> None:
    story = story_of_two_holders()
    story.settle("t1", 19.9, count=1, worker="w1", ended=21.0)
    assert check_fencing(story.history()).validity is Validity.VALID


def test_a_settlement_by_another_than_the_one_it_was_handed_to_is_found() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0, worker="w1")
    story.settle("t1", 2.0, worker="w2")
    finding = check_fencing(story.history())
    assert [each.text for each in finding.violations] == ["w2 settled a delivery that was handed out to w1"]


def test_a_settlement_of_what_nobody_received_leaves_the_answer_open() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.settle("t1", 2.0)
    assert check_fencing(story.history()).validity is Validity.UNKNOWN


def test_what_a_lost_reply_left_behind_may_be_settled() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.settle("t1", 1.0, "release")
    story.fault("cut-link", 2.0, everything=True)
    story.settle("t1", 3.0, count=2)
    assert check_fencing(story.history()).validity is Validity.VALID


def test_a_server_that_forgot_a_hand_out_may_let_its_old_holder_in() -> None:
    story = story_of_two_holders()
    story.fault("fail-over", 20.5, everything=True, forgets=True)
    story.settle("t1", 21.0, count=1, worker="w1")
    assert check_fencing(story.history()).validity is Validity.VALID


# ---------------------------------------------------------------- duplicates


def story_of_two_runs(lost: bool = True) -> Story:
    """Attempt 0 runs in `w1`, and from second 20 on again in `w2`."""
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0, worker="w1")
    story.start("t1", 1.1, "w1/0")
    if not lost:
        story.end("t1", 30.0, "w1/0")
    story.run("t1", 20.0, executor="w2/0", count=2)
    return story


def test_each_attempt_runs_once() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.run("t1", 1.0, attempt=0)
    story.run("t1", 2.0, attempt=1, count=2)
    assert check_duplicates(story.history()).validity is Validity.VALID


def test_a_run_that_is_repeated_without_a_fault_is_found() -> None:
    finding = check_duplicates(story_of_two_runs().history())
    assert finding.validity is Validity.INVALID
    assert finding.figures == {"runs": 2, "repeated": 1, "side_by_side": 0, "violations": 1}


def test_two_runs_side_by_side_without_a_fault_are_found() -> None:
    finding = check_duplicates(story_of_two_runs(lost=False).history())
    assert finding.validity is Validity.INVALID
    assert finding.figures["side_by_side"] == 1


def test_the_next_attempt_beside_the_one_before_is_found() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.start("t1", 1.1, "w1/0", attempt=0)
    story.end("t1", 9.0, "w1/0", attempt=0)
    story.run("t1", 5.0, executor="w2/0", count=2, attempt=1)
    assert check_duplicates(story.history()).validity is Validity.INVALID


@pytest.mark.parametrize(
    "hit",
    [
        {"pids": [pid_of("w1/0")]},
        {"pids": [pid_of("w1")]},
        {"incarnations": ["w1"]},
        {"everything": True},
    ],
    ids=["executor", "worker's process", "incarnation", "everything"],
)
def test_a_fault_that_hit_the_earlier_run_explains_the_next(hit: dict[str, object]) -> None:
    story = story_of_two_runs()
    story.fault("some-fault", 5.0, 6.0, **hit)  # type: ignore[arg-type]
    assert check_duplicates(story.history()).validity is Validity.VALID


@pytest.mark.parametrize(
    "hit",
    [{"pids": [pid_of("w3")], "incarnations": ["w3"]}, {"everything": True, "phase": Phase.FAIL}],
    ids=["another worker", "it was not done"],
)
def test_a_fault_elsewhere_explains_nothing(hit: dict[str, object]) -> None:
    story = story_of_two_runs()
    story.fault("some-fault", 5.0, 6.0, **hit)  # type: ignore[arg-type]
    assert check_duplicates(story.history()).validity is Validity.INVALID


def test_a_faults_effect_ends_with_the_visibility_timeout() -> None:
    for begin, validity in ((-5.0, Validity.VALID), (-VISIBILITY - 5.0, Validity.INVALID)):
        story = story_of_two_runs()
        story.fault("freeze-broker", begin, begin + 1.0, everything=True)
        assert check_duplicates(story.history()).validity is validity


def test_a_fault_that_comes_later_explains_nothing() -> None:
    story = story_of_two_runs()
    story.fault("freeze-broker", 25.0, everything=True)
    assert check_duplicates(story.history()).validity is Validity.INVALID


def test_a_fault_without_an_end_lasts() -> None:
    story = story_of_two_runs()
    story.fault("freeze-broker", -100.0, phase=None, everything=True)
    assert check_duplicates(story.history()).validity is Validity.VALID


def test_poison_repeats_itself_and_what_shared_its_process() -> None:
    story = Story()
    story.enqueue("bad", 0.0, expects="poison")
    story.enqueue("near", 0.0)
    story.enqueue("far", 0.0)
    for task, executor in (("bad", "w1/0"), ("near", "w1/0"), ("far", "w1/1")):
        story.deliver(task, 1.0)
        story.start(task, 1.1, executor)
        story.run(task, 2.0, executor="w2/0", count=2)
    finding = check_duplicates(story.history())
    assert [each.task_id for each in finding.violations] == ["far"]


def test_what_had_ended_before_poison_began_is_not_its_doing() -> None:
    story = Story()
    story.enqueue("bad", 0.0, expects="poison")
    story.enqueue("near", 0.0)
    story.deliver("near", 1.0)
    story.start("near", 1.1)
    story.end("near", 1.2)
    story.deliver("bad", 1.25)
    story.start("bad", 1.3)
    story.run("near", 3.0, executor="w2/0", count=2)
    assert check_duplicates(story.history()).validity is Validity.INVALID


def test_a_hard_limit_takes_its_neighbours_along() -> None:
    story = Story()
    for task in ("slow", "near"):
        story.enqueue(task, 0.0)
        story.deliver(task, 1.0)
        story.start(task, 1.1, "w1/0")
    story.settle("slow", 5.0, "retry")
    story.settle("near", 5.0, "release")
    story.run("near", 6.0, executor="w1/1", count=2)
    assert check_duplicates(story.history()).validity is Validity.VALID


def test_an_operators_task_may_kill_its_own_process() -> None:
    for workload, validity in (("own", Validity.VALID), ("short", Validity.INVALID)):
        story = Story()
        story.enqueue("t1", 0.0, workload=workload)
        story.deliver("t1", 1.0)
        story.start("t1", 1.1)
        story.deliver("t1", 2.0, count=2, deaths=["killed by signal 11"])
        story.start("t1", 2.1)
        assert check_duplicates(story.history()).validity is validity


def test_a_replay_is_no_duplicate() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.run("t1", 1.0)
    story.run("t1", 30.0, count=2)
    assert check_duplicates(story.history()).validity is Validity.VALID


# ---------------------------------------------------------------- recovery


def story_of_a_killed_executor(told_after: float | None) -> Story:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.start("t1", 1.1, "w1/0")
    story.kill_executor("w1/0", 5.0)
    if told_after is not None:
        story.settle("t1", 5.0 + told_after, "release", deaths=["killed by signal 9"])
        story.run("t1", 5.1 + told_after, executor="w1/1", count=2)
    story.life("other", 30.0, executor="w1/1")
    return story


def test_an_executors_death_is_told_at_once() -> None:
    finding = check_recovery(story_of_a_killed_executor(0.05).history())
    assert finding.validity is Validity.VALID
    assert finding.figures["executor_deaths"] == 1
    assert finding.figures["median_executor_restart_seconds"] == pytest.approx(0.151)


def test_an_executors_death_that_is_told_late_is_found() -> None:
    finding = check_recovery(story_of_a_killed_executor(VISIBILITY + 1).history())
    assert finding.validity is Validity.INVALID
    assert "the broker was told 11.0 s later" in finding.violations[0].text


def test_an_executors_death_that_is_never_told_is_found() -> None:
    finding = check_recovery(story_of_a_killed_executor(None).history())
    assert "the broker was not told" in finding.violations[0].text


def test_time_in_which_the_broker_was_away_does_not_count() -> None:
    story = story_of_a_killed_executor(VISIBILITY + 1)
    story.fault("freeze-broker", 5.5, 15.5, everything=True)
    assert check_recovery(story.history()).validity is Validity.VALID


def test_a_worker_that_dies_as_well_has_nothing_to_tell() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.start("t1", 1.1, "w1/0")
    story.kill_executor("w1/0", 5.0)
    story.kill_worker("w1", 5.1)
    story.run("t1", 16.5, executor="w2/0", count=2)
    assert check_recovery(story.history()).validity is Validity.VALID


def story_of_a_killed_worker(came_after: float | None) -> Story:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.start("t1", 1.1, "w1/0")
    story.life("early", 0.5, executor="w2/0")
    story.kill_worker("w1", 5.0)
    if came_after is not None:
        story.run("t1", 5.01 + came_after, executor="w2/0", count=2)
    return story


def test_what_a_dead_worker_held_comes_back_after_its_visibility_timeout() -> None:
    finding = check_recovery(story_of_a_killed_worker(VISIBILITY + 1).history())
    assert finding.validity is Validity.VALID
    assert finding.figures["worker_deaths"] == 1
    assert finding.figures["worst_worker_redelivery_seconds"] == pytest.approx(VISIBILITY + 1)


def test_what_comes_back_late_while_newer_work_goes_ahead_is_found() -> None:
    story = story_of_a_killed_worker(VISIBILITY + 10)
    for number in range(40):
        story.life(f"new{number}", 6.0 + number * 0.5, executor="w2/1")
    finding = check_recovery(story.history())
    assert finding.validity is Validity.INVALID
    assert finding.violations[0].task_id == "t1"
    assert "was handed out 20.0 s later; meanwhile w2 was given new work" in finding.violations[0].text


def test_what_comes_back_late_while_nothing_happens_is_found() -> None:
    finding = check_recovery(story_of_a_killed_worker(VISIBILITY + 15).history())
    assert finding.validity is Validity.INVALID
    assert "nothing at all happened" in finding.violations[0].text


def test_what_never_comes_back_is_found() -> None:
    story = story_of_a_killed_worker(None)
    story.life("late", 60.0, executor="w2/0")
    assert "was not handed out again" in check_recovery(story.history()).violations[0].text


def test_more_urgent_work_and_busy_slots_may_hold_it_up() -> None:
    story = story_of_a_killed_worker(VISIBILITY + 15)
    for number in range(60):
        story.life(f"urgent{number}", 6.0 + number * 0.5, executor="w2/1", priority=9)
    assert check_recovery(story.history()).validity is Validity.VALID
    story = story_of_a_killed_worker(VISIBILITY + 15)
    story.life("long", 6.0, lasts=30.0, executor="w2/1", priority=9)
    assert check_recovery(story.history()).validity is Validity.VALID


def test_time_in_which_no_other_worker_reached_the_broker_does_not_count() -> None:
    story = story_of_a_killed_worker(VISIBILITY + 20)
    story.fault("freeze-broker", 6.0, 20.0, everything=True)
    assert check_recovery(story.history()).validity is Validity.VALID


def test_what_a_worker_settled_with_its_last_breath_may_have_gone_another_way() -> None:
    story = story_of_a_killed_worker(None)
    story.settle("t1", 4.99, "retry", phase=None, delay=300.0)
    story.life("late", 60.0, executor="w2/0")
    assert check_recovery(story.history()).validity is Validity.VALID


def test_a_worker_that_dies_at_a_fault_point_counts_as_killed() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0)
    story.fault("point", 5.0, pids=[pid_of("w1")], incarnations=["w1"])
    story.life("late", 60.0, executor="w2/0")
    assert check_recovery(story.history()).validity is Validity.INVALID


def test_what_a_sweep_set_aside_does_not_come_back() -> None:
    story = story_of_a_killed_worker(None)
    story.life("late", 60.0, executor="w2/0")
    story.observe("t1", 61.0, "failed", reason="poison")
    assert check_recovery(story.history()).validity is Validity.VALID


def test_slots_full_of_tasks_that_are_lost_later_hold_it_up_as_well() -> None:
    story = story_of_a_killed_worker(VISIBILITY + 15)
    story.enqueue("long", 5.5, priority=9)
    story.deliver("long", 6.0, worker="w2")
    story.start("long", 6.1, "w2/1")
    story.deliver("long", 40.0, worker="w2", count=2)
    assert check_recovery(story.history()).validity is Validity.VALID
