"""Checkers of how tasks end: nothing lost, ended once, ended as expected."""

from __future__ import annotations

import pytest

from stem_chaos.checker.ends import check_ends
from stem_chaos.checker.finding import Finding, Validity
from stem_chaos.checker.no_loss import check_no_loss
from stem_chaos.checker.terminal import check_terminal_once
from stem_chaos.history import Phase
from tests.chaos.histories import Story


def told(finding: Finding) -> list[str]:
    return [violation.text for violation in finding.violations]


# ---------------------------------------------------------------- no loss


def test_a_task_that_ended_is_not_lost() -> None:
    story = Story()
    story.life("t1", 0.0)
    finding = check_no_loss(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["accepted"] == finding.figures["ended"] == 1


@pytest.mark.parametrize("state", ["queued", "running", "retried"])
def test_an_accepted_task_without_an_end_is_lost(state: str) -> None:
    story = Story()
    story.life("t1", 0.0)
    story.enqueue("t2", 1.0)
    story.observe("t2", 60.0, state)
    finding = check_no_loss(story.history())
    assert finding.validity is Validity.INVALID
    assert [(each.task_id, each.at) for each in finding.violations] == [("t2", 60.0)]
    assert f"at the end is {state}; handed out 0 times" in finding.violations[0].text


def test_only_the_last_look_counts() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.observe("t1", 1.0, "running")
    story.observe("t1", 2.0, "failed")
    assert check_no_loss(story.history()).validity is Validity.VALID


@pytest.mark.parametrize("phase", [Phase.INFO, None])
def test_an_enqueue_without_an_answer_may_have_added_nothing(phase: Phase | None) -> None:
    story = Story()
    story.enqueue("t1", 0.0, phase)
    story.observe("t1", 60.0, "absent")
    finding = check_no_loss(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["unknown"] == 1


def test_a_task_without_an_answer_that_was_handed_out_does_exist_and_has_to_end() -> None:
    story = Story()
    story.enqueue("t1", 0.0, Phase.INFO)
    story.deliver("t1", 1.0)
    story.observe("t1", 60.0, "running")
    assert check_no_loss(story.history()).validity is Validity.INVALID


def test_one_answer_of_several_is_enough_to_be_accepted() -> None:
    story = Story()
    story.enqueue("t1", 0.0, Phase.INFO)
    story.enqueue("t1", 1.0, Phase.OK)
    story.enqueue("t1", 2.0, Phase.FAIL)
    story.observe("t1", 60.0, "queued")
    assert check_no_loss(story.history()).validity is Validity.INVALID


def test_a_task_that_was_refused_does_not_run() -> None:
    story = Story()
    story.enqueue("t1", 0.0, Phase.FAIL)
    assert check_no_loss(story.history()).validity is Validity.VALID
    story.run("t1", 1.0)
    assert told(check_no_loss(story.history())) == ["was refused, and was handed out all the same"]


def test_a_task_that_nobody_looked_at_leaves_the_answer_open() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    finding = check_no_loss(story.history())
    assert finding.validity is Validity.UNKNOWN
    assert finding.reason is not None
    assert "t1" in finding.reason


def test_what_was_not_yet_due_is_not_lost() -> None:
    story = Story()
    story.enqueue("t1", 0.0, delay=100.0)
    story.observe("t1", 60.0, "queued")
    story.enqueue("t2", 0.0)
    story.run("t2", 0.1)
    story.settle("t2", 0.2, "retry", delay=300.0)
    story.observe("t2", 60.0, "retried")
    assert check_no_loss(story.history()).validity is Validity.UNKNOWN


def test_a_retry_that_was_never_answered_and_never_came_back_is_lost() -> None:
    story = Story()  # as a retry in two steps loses it when its worker dies in between
    story.enqueue("t1", 0.0)
    story.deliver("t1", 0.1)
    story.settle("t1", 0.2, "retry", phase=None, delay=1.0)
    story.observe("t1", 60.0, "queued")
    assert check_no_loss(story.history()).validity is Validity.INVALID


def test_what_a_server_forgot_is_told_apart() -> None:
    story = Story()
    story.fault("fail-over", 5.0, 8.0, everything=True, forgets=True)
    story.enqueue("t1", 6.0)
    story.observe("t1", 60.0, "queued")
    finding = check_no_loss(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["lost_by_server"] == 1


def test_what_was_replicated_or_came_at_another_time_is_not_the_servers_to_forget() -> None:
    story = Story()
    story.fault("fail-over", 5.0, 8.0, everything=True, forgets=True)
    story.enqueue("before", 0.0)
    story.enqueue("replicated", 6.0, is_replicated=True)
    story.enqueue("after", 9.0)
    for task in ("before", "replicated", "after"):
        story.observe(task, 60.0, "queued")
    finding = check_no_loss(story.history())
    assert {each.task_id for each in finding.violations} == {"before", "replicated", "after"}


# ---------------------------------------------------------------- terminal exactly once


def test_a_task_that_ends_once_is_well() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.observe("t1", 60.0)
    finding = check_terminal_once(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures == {"ended": 1, "seen_twice": 1}


def test_two_settlements_that_end_a_task_are_one_too_many() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.settle("t1", 1.0, "dead-letter", count=2, worker="w2")
    assert told(check_terminal_once(story.history())) == ["was ended 2 times: ack of delivery 1, dead-letter of delivery 2"]


def test_a_repeated_settlement_is_refused_or_unknown() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.settle("t1", 1.0, "ack", phase=Phase.FAIL)
    story.settle("t1", 2.0, "ack", phase=Phase.INFO)
    story.settle("t1", 3.0, "ack", phase=None)
    assert check_terminal_once(story.history()).validity is Validity.VALID


def test_a_task_does_not_come_back_after_its_end() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.deliver("t1", 5.0, count=2, worker="w2")
    assert told(check_terminal_once(story.history())) == ["delivery 1 ended it, and it was handed out again as delivery 2"]


def test_the_hand_outs_order_counts_and_not_when_they_were_written_down() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 3.0, count=2, worker="w2")
    story.settle("t1", 4.0, "ack", count=2, worker="w2")
    story.deliver("t1", 5.0, count=1, worker="w1")  # it was stopped before it could say so
    assert check_terminal_once(story.history()).validity is Validity.VALID


@pytest.mark.parametrize(
    "second",
    [{"state": "failed"}, {"state": "succeeded", "result": 5}, {"state": "queued"}, {"state": "absent"}],
    ids=["other state", "other result", "not ended", "not there"],
)
def test_a_result_does_not_change(second: dict[str, object]) -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.observe("t1", 1.0, "succeeded", 4)
    story.observe("t1", 2.0, **second)  # type: ignore[arg-type]
    finding = check_terminal_once(story.history())
    assert finding.validity is Validity.INVALID
    assert finding.violations[0].text.startswith("was succeeded (4), and then ")


def test_a_replayed_task_may_end_again() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 0.1)
    story.settle("t1", 0.2, "dead-letter")
    story.observe("t1", 1.0, "failed", error="E")
    story.deliver("t1", 5.0, count=2, replay_count=1)
    story.settle("t1", 5.1, "ack", count=2, replay_count=1)
    story.observe("t1", 6.0, replay_count=1)
    assert check_terminal_once(story.history()).validity is Validity.VALID


def test_the_record_says_what_the_settlement_said() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 0.1)
    story.settle("t1", 0.2, "ack")
    story.observe("t1", 60.0, "running")
    assert told(check_terminal_once(story.history())) == ["was settled as succeeded, and its record says running"]


def test_what_was_acknowledged_when_it_started_gets_its_record_later() -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 0.1)
    story.settle("t1", 0.2, "ack", state="running")
    story.observe("t1", 60.0, "succeeded")
    assert check_terminal_once(story.history()).validity is Validity.VALID


def test_a_server_that_forgets_may_begin_anew() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.fault("fail-over", 2.0, 3.0, everything=True, forgets=True)
    story.run("t1", 5.0, executor="w2/0", count=2)
    assert check_terminal_once(story.history()).validity is Validity.VALID


# ---------------------------------------------------------------- as expected


@pytest.mark.parametrize(
    ("expects", "state", "more"),
    [
        ("succeeded", "succeeded", {}),
        ("cancelled", "cancelled", {}),
        ("max-retries-exhausted", "failed", {"dead_letter": "max-retries-exhausted"}),
        ("poison", "failed", {"reason": "poison"}),
        (None, "failed", {"reason": "malformed"}),
    ],
)
def test_an_expected_end_is_well(expects: str | None, state: str, more: dict[str, object]) -> None:
    story = Story()
    story.enqueue("t1", 0.0, expects=expects)
    story.observe("t1", 1.0, state, **more)
    assert check_ends(story.history()).validity is Validity.VALID


@pytest.mark.parametrize(
    ("expects", "state", "more"),
    [
        ("succeeded", "failed", {"error": "E: why"}),
        ("succeeded", "failed", {"reason": "poison"}),
        ("max-retries-exhausted", "failed", {"dead_letter": "malformed"}),
        ("max-retries-exhausted", "succeeded", {}),
    ],
)
def test_another_end_than_the_expected_one_is_found(expects: str, state: str, more: dict[str, object]) -> None:
    story = Story()
    story.enqueue("t1", 0.0, expects=expects)
    story.observe("t1", 1.0, state, **more)
    assert check_ends(story.history()).validity is Validity.INVALID


def test_a_task_that_was_killed_too_often_may_end_as_poison() -> None:
    story = Story()
    story.enqueue("t1", 0.0, expects="succeeded")
    story.deliver("t1", 1.0, count=3, deaths=["killed", "killed"])
    story.observe("t1", 60.0, "failed", reason="poison")
    assert check_ends(story.history()).validity is Validity.VALID
