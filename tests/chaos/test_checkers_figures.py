"""Checkers of figures: limits back to baseline, and throughput."""

from __future__ import annotations

import pytest

from stem_chaos.checker.baseline import check_baseline
from stem_chaos.checker.finding import Validity
from stem_chaos.checker.throughput import check_throughput
from tests.chaos.histories import Story

COUNTED = {"keys": 20, "memory_bytes": 400 * 2**20, "descriptors": 200, "threads": 80, "processes": 10}

# ---------------------------------------------------------------- baseline


def story_of_counts(**after: object) -> Story:
    story = Story()
    story.measure(1.0, **COUNTED)
    story.fault("kill-worker", 5.0, 6.0)
    story.measure(20.0, **{**COUNTED, **after})
    return story


def test_what_is_back_where_it_was_is_well() -> None:
    finding = check_baseline(story_of_counts(keys=24, memory_bytes=440 * 2**20).history())
    assert finding.validity is Validity.VALID
    assert finding.figures["keys"] == "20 → 24"


@pytest.mark.parametrize(
    "after",
    [{"keys": 500}, {"memory_bytes": 900 * 2**20}, {"descriptors": 400}, {"threads": 160}, {"processes": 20}],
    ids=lambda after: next(iter(after)),
)
def test_what_has_grown_is_found(after: dict[str, int]) -> None:
    (name,) = after
    finding = check_baseline(story_of_counts(**after).history())
    assert finding.validity is Validity.INVALID
    assert finding.violations[0].text.startswith(f"{name} was ")


def test_counts_of_several_processes_are_added_up() -> None:
    story = Story()
    story.measure(1.0, threads={"node-1": 40, "node-2": 40})
    story.measure(20.0, threads={"node-1": 40, "node-2": 200})
    assert check_baseline(story.history()).validity is Validity.INVALID


def test_what_is_counted_while_a_fault_is_on_is_no_baseline() -> None:
    story = Story()
    story.measure(1.0, **COUNTED)
    story.fault("pause-worker", 5.0, 10.0)
    story.measure(7.0, **{**COUNTED, "threads": 1000})
    finding = check_baseline(story.history())
    assert finding.validity is Validity.UNKNOWN
    assert finding.reason == "nothing was counted after the last one"


def test_without_a_count_before_the_first_fault_the_answer_is_open() -> None:
    story = Story()
    story.fault("pause-worker", 1.0, 2.0)
    story.measure(7.0, **COUNTED)
    assert check_baseline(story.history()).validity is Validity.UNKNOWN


def test_what_is_kept_on_purpose_is_only_told() -> None:
    story = Story()
    story.measure(1.0, keys=1, broker_bytes=1000)
    story.measure(20.0, keys=1, broker_bytes=1_000_000)
    finding = check_baseline(story.history())
    assert finding.validity is Validity.VALID
    assert finding.figures["broker_bytes"] == "1000 B → 977 KiB"


# ---------------------------------------------------------------- throughput


def story_of_rates(before: int, after: int, backlog: int = 0, until: float = 40.0) -> Story:
    """So many tasks end in a second until second 10, and from 20 on; in between is a fault. The backlog waits from the start."""
    story = Story(quiet_from=20.0)
    story.fault("kill-worker", 10.0, 20.0)
    for second in range(int(until)):
        for number in range(before if second < 10 else 0 if second < 20 else after):
            story.life(f"t{second}-{number}", second + number / max(before, after), lasts=0.001)
    for number in range(backlog):
        story.enqueue(f"waits{number}", 0.0)
        story.deliver(f"waits{number}", until + 5.0)
    return story


def test_throughput_that_comes_back_is_well() -> None:
    finding = check_throughput(story_of_rates(50, 48).history())
    assert finding.validity is Validity.VALID
    assert finding.figures["before_per_second"] == 50.0
    assert finding.figures["back_after_seconds"] == pytest.approx(2.0)


def test_throughput_that_stays_low_while_work_waits_is_found() -> None:
    finding = check_throughput(story_of_rates(50, 30, backlog=100).history())
    assert finding.validity is Validity.INVALID
    assert "30.0 tasks ended in a second, 50.0 had before" in finding.violations[0].text


def test_throughput_that_stops_altogether_while_work_waits_is_found() -> None:
    finding = check_throughput(story_of_rates(50, 0, backlog=100, until=35.0).history())
    assert finding.validity is Validity.INVALID


def test_low_throughput_for_want_of_work_leaves_the_answer_open() -> None:
    finding = check_throughput(story_of_rates(50, 30).history())
    assert finding.validity is Validity.UNKNOWN
    assert finding.reason == "there was not work enough after the last fault"


def test_a_run_that_ends_too_soon_leaves_the_answer_open() -> None:
    assert check_throughput(story_of_rates(50, 30, until=23.0).history()).validity is Validity.UNKNOWN


def test_slots_that_are_full_of_longer_tasks_have_recovered() -> None:
    story = story_of_rates(50, 1, backlog=100)
    for executor in ("w1/2", "w1/3", "w2/2", "w2/3"):
        story.life(f"long-{executor}", 19.0, lasts=20.0, executor=executor)
    assert check_throughput(story.history()).validity is Validity.UNKNOWN


def test_without_a_fault_there_is_nothing_to_come_back_from() -> None:
    story = Story()
    story.life("t1", 0.0)
    assert check_throughput(story.history()).validity is Validity.VALID


def test_without_a_calm_beginning_there_is_nothing_to_compare_with() -> None:
    story = Story()
    story.life("t1", 0.0)
    story.fault("kill-worker", 1.0)
    assert check_throughput(story.history()).validity is Validity.UNKNOWN
