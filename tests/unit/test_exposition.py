"""The node's totals: what workers send is added up and read back by Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stem_actors.exposition import NodeMetrics
from stem_actors.metrics import BUCKETS, TABLE, Kind, Tally, growth

STARTED, DURATION = "stem_tasks_started_total", "stem_task_duration_seconds"


def samples(metrics: NodeMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(name, frozenset(labels.items())): value for name, labels, value in _each(metrics)}


def _each(metrics: NodeMetrics) -> Iterator[tuple[str, dict[str, str], float]]:
    body, content_type = metrics.render("")
    assert content_type.startswith("text/plain")
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def value(metrics: NodeMetrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


@pytest.fixture
def metrics() -> NodeMetrics:
    return NodeMetrics(max_tasks=2)


def test_growth_of_all_workers_and_all_their_lives_adds_up(metrics: NodeMetrics) -> None:
    for worker, by in (("a-1", 2), ("a-2", 5), ("a-1", 1)):
        tally = Tally()
        tally.count(STARTED, "t", "q", worker, by=by)
        metrics.add(growth(({}, {}), tally.snapshot()))
    assert value(metrics, STARTED, task="t", queue="q", worker="a-1") == 3
    assert value(metrics, STARTED, task="t", queue="q", worker="a-2") == 5


def test_a_histogram_has_cumulative_buckets_a_count_and_a_sum(metrics: NodeMetrics) -> None:
    tally = Tally()
    tally.observe_all(DURATION, (0.0005, 0.001, 0.3, 1000.0), "t", "q", "a-1")
    before = tally.snapshot()
    metrics.add(growth(({}, {}), before))
    tally.observe(DURATION, 0.3, "t", "q", "a-1")
    metrics.add(growth(before, tally.snapshot()))
    labels = {"task": "t", "queue": "q", "worker": "a-1"}
    buckets = {
        bound: value(metrics, f"{DURATION}_bucket", le=bound, **labels) for bound in ("0.001", "0.25", "0.5", "600.0", "+Inf")
    }
    assert buckets == {"0.001": 2, "0.25": 2, "0.5": 4, "600.0": 4, "+Inf": 5}
    assert value(metrics, f"{DURATION}_count", **labels) == 5
    assert value(metrics, f"{DURATION}_sum", **labels) == pytest.approx(1000.6015)
    assert sum(name == f"{DURATION}_bucket" for name, _ in samples(metrics)) == len(BUCKETS) + 1


def test_gauges_are_the_last_ones_of_each_worker_and_go_with_it(metrics: NodeMetrics) -> None:
    metrics.set_gauges("a-1", [["stem_worker_ready", ["a-1"], 0]])
    metrics.set_gauges("a-2", [["stem_worker_ready", ["a-2"], 1]])
    metrics.set_gauges("a-1", [["stem_worker_ready", ["a-1"], 1]])
    assert value(metrics, "stem_worker_ready", worker="a-1") == 1
    metrics.forget("a-1")
    metrics.forget("never-there")
    assert value(metrics, "stem_worker_ready", worker="a-1") is None
    assert value(metrics, "stem_worker_ready", worker="a-2") == 1


def test_a_queue_that_several_workers_watch_is_shown_once(metrics: NodeMetrics) -> None:
    metrics.set_gauges("a-1", [["stem_queue_depth", ["q"], 7]])
    metrics.set_gauges("a-2", [["stem_queue_depth", ["q"], 8]])
    assert value(metrics, "stem_queue_depth", queue="q") == 8


def test_tasks_beyond_the_bound_are_counted_together(metrics: NodeMetrics) -> None:
    for task in ("one", "two", "three", "one", "four"):
        metrics.add([[STARTED, [task, "q", "a-1"], 1]])
        metrics.add([["stem_tasks_revoked_total", [task, "q"], 1]])
    by_task = {labels["task"]: value for name, labels, value in _each(metrics) if name == STARTED}
    assert by_task == {"one": 2, "two": 1, "_other": 2}
    assert value(metrics, "stem_tasks_revoked_total", task="_other", queue="q") == 2


def test_what_another_version_sends_is_left_out(metrics: NodeMetrics) -> None:
    metrics.add([["stem_unheard_of_total", ["x"], 1], [STARTED, ["t"], 1]])
    metrics.set_gauges("a-1", [["stem_unheard_of", ["x"], 1], ["stem_worker_ready", [], 1]])
    assert {name for name, _ in samples(metrics)} == {"stem_build_info"}


def test_label_values_may_hold_anything(metrics: NodeMetrics) -> None:
    strange = 'say "hi"\\\n{x="1"} é'
    metrics.count("stem_actor_restarts_total", strange, "crashed")
    assert value(metrics, "stem_actor_restarts_total", actor=strange, reason="crashed") == 1


def test_openmetrics_is_served_to_whom_it_asks(metrics: NodeMetrics) -> None:
    metrics.count("stem_actor_restarts_total", "settler", "crashed")
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert b'stem_actor_restarts_total{actor="settler",reason="crashed"} 1.0' in body


def test_every_metric_of_the_table_can_be_exposed(metrics: NodeMetrics) -> None:
    gauges = []
    for metric in TABLE.values():
        labels = ["x"] * len(metric.labels)
        match metric.kind:
            case Kind.COUNTER:
                metrics.add([[metric.name, labels, 1]])
            case Kind.HISTOGRAM:
                metrics.add([[metric.name, labels, [0.0] * (len(metric.buckets) + 1) + [0.0, 0.0]]])
            case Kind.GAUGE:
                gauges.append([metric.name, labels, 1])
    metrics.set_gauges("a-1", gauges)
    names = {name.removesuffix("_count") for name, _ in samples(metrics)}
    assert set(TABLE) <= names
