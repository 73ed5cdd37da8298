"""The checker of rate limits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stem_chaos.checker.finding import Finding, Validity
from stem_chaos.checker.rates import rate_checker
from tests.chaos.histories import Story


def told(runs: Sequence[tuple[float, float]], faults: Sequence[tuple[str, float, float]] = ()) -> Finding:
    """What is found of runs that were handed out and began so, at 2 a second."""
    story = Story()
    for number, (handed, began) in enumerate(runs):
        story.enqueue(f"t{number}", 0.0)
        story.deliver(f"t{number}", handed)
        story.start(f"t{number}", began)
        story.end(f"t{number}", began + 0.01)
    for name, begin, end in faults:
        story.fault(name, begin, end, everything=True)
    return rate_checker("double", "2/s")(story.history())


@pytest.mark.parametrize(
    ("moments", "validity"),
    [
        ([1.0, 1.0, 1.5, 2.0, 2.5], Validity.VALID),  # a burst, and then one each half second
        ([1.0, 1.0, 1.2], Validity.INVALID),
        ([1.0, 1.5, 2.0, 2.0, 2.0, 2.0], Validity.INVALID),
        ([], Validity.VALID),
    ],
)
def test_more_than_a_burst_and_what_grows_meanwhile_is_too_much(moments: list[float], validity: Validity) -> None:
    finding = told([(at, at) for at in moments])
    assert finding.validity is validity
    assert finding.figures["runs"] == len(moments)


def test_what_was_allowed_early_may_begin_late() -> None:
    assert told([(1.0, 9.0), (1.0, 9.0), (2.0, 9.0), (4.0, 9.0)]).validity is Validity.VALID


def test_where_the_server_was_away_the_count_begins_anew() -> None:
    runs = [(1.0, 1.0), (1.0, 1.0), (1.3, 1.3), (1.3, 1.3)]
    assert told(runs).validity is Validity.INVALID
    assert told(runs, [("kill-broker", 1.1, 1.2)]).validity is Validity.VALID


def test_tasks_of_others_do_not_count() -> None:
    story = Story()
    for number in range(9):
        story.enqueue(f"t{number}", 0.0)
        story.run(f"t{number}", 1.0)
    assert rate_checker("another", "2/s")(story.history()).figures["runs"] == 0
