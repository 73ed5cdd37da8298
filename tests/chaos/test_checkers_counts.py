"""Checkers of what is counted: attempts, deliveries, deaths, and who is to blame."""

from __future__ import annotations

import pytest

from stem_chaos.checker.counters import check_counters
from stem_chaos.checker.finding import Finding, Validity
from stem_chaos.checker.poison import check_poison
from stem_chaos.history import Phase
from tests.chaos.histories import Story, pid_of


def text_of(finding: Finding) -> str:
    assert finding.validity is Validity.INVALID
    return finding.violations[0].text


# ---------------------------------------------------------------- counters


def test_counters_that_move_as_they_should_are_well() -> None:
    story = Story()
    story.enqueue("t1", 0.0, max_retries=3)
    story.deliver("t1", 1.0, count=1)
    story.settle("t1", 2.0, "release", count=1)
    story.deliver("t1", 3.0, count=2)
    story.settle("t1", 4.0, "retry", count=2, deaths=[])
    story.deliver("t1", 5.0, count=3, attempt=1)
    story.settle("t1", 6.0, "release", count=3, attempt=1, deaths=["killed"])
    story.deliver("t1", 7.0, count=4, attempt=1, deaths=["killed"])
    story.deliver("t1", 20.0, count=5, attempt=1, deaths=["killed"], lapses=1)  # its worker was lost
    story.settle("t1", 21.0, "ack", count=5, attempt=1)
    finding = check_counters(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures == {"deliveries": 5, "retries": 1, "deaths": 1, "unseen_deliveries": 0}


def test_what_a_worker_takes_up_again_is_the_same_hand_out() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1)
    story.deliver("t1", 2.0, count=1, recovered=True)
    assert check_counters(story.history()).validity is Validity.VALID


def test_two_copies_of_a_task_are_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, lease="a")
    story.deliver("t1", 1.0, count=1, lease="b", worker="w2")
    assert text_of(check_counters(story.history())) == "two hand-outs have the delivery count 1: there are two copies"


def test_a_lease_that_is_handed_out_twice_is_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, lease="a")
    story.deliver("t1", 12.0, count=2, lease="a", worker="w2")
    assert text_of(check_counters(story.history())) == "lease a was handed out twice"


@pytest.mark.parametrize("first", [1, 2])
def test_a_hand_out_that_nobody_saw_needs_a_fault(first: int) -> None:
    story = Story()
    story.enqueue("t1", 0.0)
    if first == 1:
        story.deliver("t1", 1.0, count=1)
    story.deliver("t1", 20.0, count=first + 2 - (first == 2))
    assert "seen by nobody" in text_of(check_counters(story.history()))
    story.fault("kill-worker", 5.0, incarnations=["w1"])
    assert check_counters(story.history()).validity is Validity.VALID


@pytest.mark.parametrize(
    ("verdict", "phase", "attempt", "validity"),
    [
        ("retry", Phase.OK, 1, Validity.VALID),
        ("retry", Phase.OK, 0, Validity.INVALID),
        ("retry", Phase.INFO, 1, Validity.VALID),
        ("retry", Phase.INFO, 0, Validity.VALID),
        ("retry", None, 1, Validity.VALID),
        ("retry", Phase.FAIL, 1, Validity.INVALID),
        ("release", Phase.OK, 0, Validity.VALID),
        ("release", Phase.OK, 1, Validity.INVALID),
        ("defer", Phase.OK, 1, Validity.INVALID),
        ("retry", Phase.OK, 2, Validity.INVALID),
    ],
)
def test_attempts_grow_with_retries_alone(verdict: str, phase: Phase | None, attempt: int, validity: Validity) -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1)
    story.settle("t1", 2.0, verdict, count=1, phase=phase)
    story.deliver("t1", 3.0, count=2, attempt=attempt)
    assert check_counters(story.history()).validity is validity


def test_an_attempt_that_shrinks_is_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, attempt=2)
    story.deliver("t1", 3.0, count=2, attempt=1)
    assert "attempt changed by -1" in text_of(check_counters(story.history()))


def test_more_attempts_than_allowed_are_found() -> None:
    story = Story()
    story.enqueue("t1", 0.0, max_retries=1)
    story.deliver("t1", 1.0, attempt=2)
    assert "may be retried 1 times" in text_of(check_counters(story.history()))


def test_a_death_that_was_not_settled_so_is_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1)
    story.settle("t1", 2.0, "release", count=1)
    story.deliver("t1", 3.0, count=2, deaths=["killed"])
    assert text_of(check_counters(story.history())) == "was settled as release with 0 deaths, and then handed out with 1"


def test_a_death_that_is_forgotten_is_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, deaths=["killed"])
    story.deliver("t1", 13.0, count=2)
    assert "1 deaths were forgotten" in text_of(check_counters(story.history()))


def test_two_deaths_in_one_hand_out_are_found() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1)
    story.deliver("t1", 13.0, count=2, deaths=["killed", "killed"])
    assert "2 deaths and 0 attempts" in text_of(check_counters(story.history()))


def test_a_run_that_ends_clears_its_lapses() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, lapses=1)
    story.settle("t1", 2.0, "retry", count=1)
    story.deliver("t1", 3.0, count=2, attempt=1, lapses=1)
    assert text_of(check_counters(story.history())) == "a retry kept 1 lapses"


def test_a_message_that_cannot_be_read_counts_nothing() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=0, attempt=0)
    story.settle("t1", 2.0, "dead-letter", count=0)
    assert check_counters(story.history()).validity is Validity.VALID


def test_a_server_that_forgets_may_count_again() -> None:
    story = Story()
    story.deliver("t1", 1.0, count=1, lease="a")
    story.fault("fail-over", 2.0, everything=True, forgets=True)
    story.deliver("t1", 3.0, count=1, lease="b", worker="w2")
    assert check_counters(story.history()).validity is Validity.VALID


# ---------------------------------------------------------------- poison


def story_of_poison(deaths: int = 3, reason: str = "poison") -> Story:
    """A task that kills its executor each time, of which three are allowed."""
    story = Story()
    story.enqueue("bad", 0.0, expects="poison")
    causes: list[str] = []
    for count in range(1, deaths + 1):
        story.deliver("bad", float(count), count=count, deaths=causes)
        story.start("bad", count + 0.1, f"w1/{count}")
        causes = [*causes, "killed by signal 11"]
        if count < deaths:
            story.settle("bad", count + 0.2, "release", count=count, deaths=causes)
    story.settle("bad", deaths + 0.2, "dead-letter", count=deaths, deaths=causes, reason=reason)
    story.observe("bad", deaths + 1.0, "failed", reason=reason)
    return story


def test_poison_is_set_aside_after_its_last_death() -> None:
    finding = check_poison(story_of_poison().history())
    assert finding.validity is Validity.VALID
    assert finding.figures == {"poison": 1, "deaths": 3, "charged_others": 0}


@pytest.mark.parametrize("deaths", [2, 4])
def test_poison_that_is_set_aside_too_soon_or_too_late_is_found(deaths: int) -> None:
    assert f"was set aside after {deaths} deaths" in text_of(check_poison(story_of_poison(deaths).history()))


def test_poison_that_ends_as_something_else_is_found() -> None:
    assert "ended as failed (max-retries-exhausted)" in text_of(
        check_poison(story_of_poison(reason="max-retries-exhausted").history())
    )


def story_of_a_charge(executor: str = "w1/0") -> Story:
    """`t1` begins to run in `executor`, and comes back with a death."""
    story = Story()
    story.enqueue("t1", 0.0)
    story.deliver("t1", 1.0, count=1)
    story.start("t1", 1.1, executor)
    story.settle("t1", 2.0, "release", count=1, deaths=["killed by signal 9"])
    story.deliver("t1", 3.0, count=2, deaths=["killed by signal 9"])
    return story


def test_a_death_under_a_task_alone_is_its_own() -> None:
    story = story_of_a_charge()
    story.kill_executor("w1/0", 1.9)
    finding = check_poison(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["charged_others"] == 1


def test_a_death_that_others_shared_is_nobodys() -> None:
    story = story_of_a_charge()
    story.enqueue("bad", 0.0, expects="poison")
    story.deliver("bad", 1.0)
    story.start("bad", 1.2, "w1/0")
    assert "it shared process 1001 with 1 others" in text_of(check_poison(story.history()))


def test_a_suspect_is_charged_for_all() -> None:
    story = Story()
    for task, lapses, deaths in (("t1", 2, ["killed"]), ("t2", 0, [])):
        story.enqueue(task, 0.0)
        story.deliver(task, 1.0, count=1, lapses=lapses)
        story.start(task, 1.1, "w1/0")
        story.deliver(task, 3.0, count=2, deaths=deaths, lapses=lapses + 1)
    assert check_poison(story.history()).validity is Validity.VALID


def test_a_task_whose_process_lived_on_is_not_to_blame() -> None:
    story = story_of_a_charge()
    story.end("t1", 1.2, "w1/0")
    story.life("other", 2.5, executor="w1/0")
    assert "that process went on" in text_of(check_poison(story.history()))


def test_a_suspects_lease_may_lapse_while_its_process_lives() -> None:
    story = story_of_a_charge()
    story.end("t1", 1.2, "w1/0")
    story.life("other", 2.5, executor="w1/0")
    story.fault("pause-worker", 1.15, 2.5, pids=[pid_of("w1")], incarnations=["w1"])
    assert check_poison(story.history()).validity is Validity.VALID


def test_what_an_older_version_did_not_write_down_leaves_the_answer_open() -> None:
    story = Story(versions={"old": "0.1 (a wheel, its leases not recorded)", "new": "0.2"})
    story.deliver("t1", 1.0, count=1)
    story.deliver("t1", 9.0, count=4, attempt=2)
    assert check_counters(story.history()).validity is Validity.UNKNOWN


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    story = story_of_a_charge()
    story.enqueue("long-ago", -99.0)
    story.deliver("long-ago", -99.0)
    story.start("long-ago", -99.0, "w1/0")
    story.run("long-ago", -50.0, executor="w2/0", count=2)
    assert check_poison(story.history()).validity is Validity.VALID
    story = story_of_a_charge()
    story.end("t1", 1.2, "w1/0")
    story.life("much-later", 999.0, executor="w1/0")
    assert check_poison(story.history()).validity is Validity.VALID
