"""Checkers of what comes first: delays and priorities."""

from __future__ import annotations

import pytest

from stem_chaos.checker.delays import check_delays
from stem_chaos.checker.finding import Validity
from stem_chaos.checker.priorities import check_priorities
from stem_chaos.history import Phase
from tests.chaos.histories import Story

# ---------------------------------------------------------------- delays


@pytest.mark.parametrize(("came", "validity"), [(5.0, Validity.VALID), (4.95, Validity.VALID), (4.5, Validity.INVALID)])
def test_a_delayed_task_is_not_handed_out_before_it_is_due(came: float, validity: Validity) -> None:
    story = Story()
    story.enqueue("t1", 0.0, delay=5.0)
    story.run("t1", came)
    finding = check_delays(story.history())
    assert finding.validity is validity
    assert finding.figures["delayed"] == 1


def test_a_run_before_its_time_is_found_also_where_its_hand_out_was_not_written_down() -> None:
    story = Story()
    story.enqueue("t1", 0.0, delay=5.0)
    story.start("t1", 1.0)
    assert check_delays(story.history()).validity is Validity.INVALID


def test_a_delay_counts_from_when_the_broker_may_have_stored_it() -> None:
    story = Story()
    story.enqueue("t1", 0.0, ended=3.0, delay=5.0)  # stored somewhere in these three seconds
    story.run("t1", 5.1)
    assert check_delays(story.history()).validity is Validity.VALID


@pytest.mark.parametrize("verdict", ["retry", "defer"])
def test_what_goes_back_for_a_while_stays_away_so_long(verdict: str) -> None:
    for came, validity in ((4.0, Validity.VALID), (2.5, Validity.INVALID)):
        story = Story()
        story.deliver("t1", 0.5)
        story.settle("t1", 1.0, verdict, delay=3.0)
        story.deliver("t1", came, count=2)
        assert check_delays(story.history()).validity is validity


def test_a_retry_that_was_refused_delays_nothing() -> None:
    story = Story()
    story.deliver("t1", 0.5)
    story.settle("t1", 1.0, "retry", delay=3.0, phase=Phase.FAIL)
    story.deliver("t1", 1.5, count=2)
    assert check_delays(story.history()).validity is Validity.VALID


def test_where_a_clock_was_set_nothing_is_certain() -> None:
    story = Story()
    story.enqueue("t1", 0.0, delay=5.0)
    story.fault("step-clock", 1.0, 2.0)
    story.run("t1", 3.0)
    assert check_delays(story.history()).validity is Validity.VALID


# ---------------------------------------------------------------- priorities


def story_of_fetches(order: str, size: int = 1) -> Story:
    """All wait from the beginning; then `w1` fetches them, so many at a time, by their priorities in this order."""
    story = Story()
    for number, priority in enumerate(order):
        story.enqueue(f"t{number}", 0.0, priority=int(priority))
        fetch = number // size
        story.deliver(f"t{number}", 1.0 + fetch * 0.1, fetch=fetch + 1)
    return story


def test_what_is_more_urgent_comes_first() -> None:
    finding = check_priorities(story_of_fetches("9" * 30 + "5" * 30 + "0" * 30).history())
    assert finding.validity is Validity.VALID
    assert finding.figures == {"fetches": 90, "passed_over": 0}


def test_one_fetch_in_ten_may_take_what_is_least_urgent() -> None:
    finding = check_priorities(story_of_fetches(("9" * 9 + "0") * 10 + "9" * 5).history())
    assert finding.validity is Validity.VALID
    assert finding.figures["passed_over"] == 10


def test_the_same_with_fetches_of_many() -> None:
    story = story_of_fetches("9" * 36 + "0" * 4 + "9" * 36 + "0" * 4 + "9" * 8, size=4)
    assert check_priorities(story.history()).validity is Validity.VALID


@pytest.mark.parametrize("order", ["0" * 20 + "9" * 20, "0909090909090909", "012345678901234567890"])
def test_an_order_without_regard_to_priority_is_found(order: str) -> None:
    finding = check_priorities(story_of_fetches(order).history())
    assert finding.validity is Validity.INVALID
    assert "waited with priority" in finding.violations[0].text


def test_what_came_after_a_fetch_had_begun_was_not_passed_over() -> None:
    story = Story()
    for number in range(20):
        at = number * 1.0
        story.enqueue(f"low{number}", at, priority=0)
        story.deliver(f"low{number}", at + 0.5, fetch=2 * number)
        story.enqueue(f"high{number}", at + 0.4, priority=9)
        story.deliver(f"high{number}", at + 0.6, fetch=2 * number + 1)
    assert check_priorities(story.history()).validity is Validity.VALID


def test_another_queue_has_an_order_of_its_own() -> None:
    story = Story()
    for number in range(20):
        for priority, queue, first in ((0, "a", 0), (9, "b", 100)):
            story.enqueue(f"{queue}{number}", 0.0, priority=priority, queue=queue)
            story.deliver(f"{queue}{number}", 1.0 + first + number, queue=queue, fetch=first + number)
    assert check_priorities(story.history()).validity is Validity.VALID


def story_of_two_fetchers(asked_at: float) -> Story:
    """`w1` fetches what is least urgent from second 10 on, and `w2` what is most urgent long after, by fetches made earlier."""
    story = Story()
    story.enqueue("first", 0.0)
    story.deliver("first", 1.0, worker="w1", fetch=0)
    for number in range(20):
        story.enqueue(f"low{number}", 0.0, priority=0)
        story.deliver(f"low{number}", 10.0 + number, worker="w1", fetch=1 + number)
        story.enqueue(f"high{number}", 0.0, priority=9)
        story.deliver(f"high{number}", 100.0 + number, worker="w2", fetch=2 + number)
    story.enqueue("second", 0.0)
    story.deliver("second", asked_at, worker="w2", fetch=1)
    return story


def test_what_another_worker_fetched_only_later_was_passed_over() -> None:
    assert check_priorities(story_of_two_fetchers(50.0).history()).validity is Validity.INVALID


def test_what_another_worker_may_have_fetched_before_was_not_certainly_passed_over() -> None:
    story = story_of_two_fetchers(2.0)  # and was stopped until second 100, with all in hand
    only_one = [each for each in story.operations if not str(each.task_id).startswith("high") or each.task_id == "high0"]
    story.operations = only_one
    assert check_priorities(story.history()).validity is Validity.VALID


def test_what_was_delayed_or_comes_back_does_not_count_as_waiting() -> None:
    story = Story()
    for number in range(20):
        story.enqueue(f"low{number}", 0.0, priority=0)
        story.deliver(f"low{number}", 1.0 + number, fetch=number)
        story.enqueue(f"high{number}", 0.0, priority=9, delay=100.0)
        story.deliver(f"high{number}", 101.0 + number, fetch=100 + number)
        story.deliver(f"back{number}", 201.0 + number, count=2, fetch=200 + number)
    assert check_priorities(story.history()).validity is Validity.VALID


def test_hand_outs_that_do_not_say_their_fetch_leave_the_answer_open() -> None:
    story = Story()
    story.life("t1", 0.0, priority=0)
    assert check_priorities(story.history()).validity is Validity.VALID
    story.life("t2", 0.0, priority=1)
    assert check_priorities(story.history()).validity is Validity.UNKNOWN
