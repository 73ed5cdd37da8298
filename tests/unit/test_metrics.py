from __future__ import annotations

from stem_actors.metrics import BUCKETS, TABLE, Kind, Tally, growth

HISTOGRAM = "stem_task_duration_seconds"
NOTHING = ({}, {})  # type: ignore[var-annotated]  # of any type


def test_what_is_counted_adds_up_by_labels() -> None:
    tally = Tally()
    tally.count("a", "x")
    tally.count("a", "x", by=2)
    tally.count("a", "y")
    assert tally.snapshot()[0] == {("a", ("x",)): 3, ("a", ("y",)): 1}


def test_values_fall_into_the_bucket_that_holds_them() -> None:
    tally = Tally()
    tally.observe_all(HISTOGRAM, [0.0, 0.001, 0.0011, 1e9], "x")
    cells = tally.snapshot()[1][HISTOGRAM, ("x",)]
    assert (cells[0], cells[1], cells[len(BUCKETS)]) == (2, 1, 1)
    assert cells[-2:] == [4, sum([0.0, 0.001, 0.0011, 1e9])]
    assert len(cells) == len(BUCKETS) + 3


def test_growth_is_what_has_come_since() -> None:
    tally = Tally()
    tally.count("a", "x")
    tally.observe(HISTOGRAM, 0.5)
    first = tally.snapshot()
    assert growth(NOTHING, first) == [["a", ["x"], 1], [HISTOGRAM, [], first[1][HISTOGRAM, ()]]]
    assert growth(first, first) == []
    tally.count("b")
    tally.observe(HISTOGRAM, 0.5)
    then = growth(first, tally.snapshot())
    assert then[0] == ["b", [], 1]
    assert then[1][2][-2:] == [1, 0.5]


def test_growth_does_not_change_what_was_seen_before() -> None:
    tally = Tally()
    tally.observe(HISTOGRAM, 1.0)
    before = tally.snapshot()
    tally.observe(HISTOGRAM, 1.0)
    assert before[1][HISTOGRAM, ()][-2] == 1


def test_names_say_what_kind_of_metric_they_are() -> None:
    for metric in TABLE.values():
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.startswith("stem_")
        assert not {"id", "pid"} & set(metric.labels)


def test_numbers_of_things_have_buckets_of_their_own() -> None:
    tally = Tally()
    tally.observe("stem_settle_batch_size", 128, "w-1")
    cells = tally.snapshot()[1]["stem_settle_batch_size", ("w-1",)]
    assert len(cells) == len(TABLE["stem_settle_batch_size"].buckets) + 3
    assert cells[TABLE["stem_settle_batch_size"].buckets.index(200)] == 1
