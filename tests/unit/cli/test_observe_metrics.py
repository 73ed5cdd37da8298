from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stem_actors.exposition import NodeMetrics
from stem_actors.metrics import Tally, growth
from stem_cli.observe_metrics import snapshot

NOW = 1_700_000_000.0


@pytest.fixture
def found() -> dict[str, list[dict[str, Any]]]:
    """The snapshot of a node whose worker counted a little."""
    tally, node = Tally(), NodeMetrics(10)
    tally.count("stem_tasks_started_total", "shop.mail", "default", "w-1", by=3)
    tally.observe_all("stem_task_duration_seconds", [0.003, 0.02, 0.7], "shop.mail", "default", "w-1")
    tally.observe_all("stem_task_duration_seconds", [1e6], "shop.slow", "default", "w-1")
    node.add(growth(({}, {}), tally.snapshot()))
    node.set_gauges("w-1", [["stem_queue_oldest_seconds", ["default"], 1.5], ["stem_worker_ready", ["w-1"], 1]])
    return snapshot(node.render("text/plain")[0].decode(), "http://h/metrics", NOW)


def test_counters_have_name_tags_and_value(found: dict[str, list[dict[str, Any]]]) -> None:
    assert found["counters"] == [
        {
            "name": "stem_tasks_started_total",
            "tags": {"task": "shop.mail", "queue": "default", "worker": "w-1"},
            "value": 3,
            "node": "http://h/metrics",
        }
    ]


def test_gauges_say_when_they_were_read(found: dict[str, list[dict[str, Any]]]) -> None:
    gauges = {each["name"]: each for each in found["gauges"]}
    assert set(gauges) == {"stem_queue_oldest_seconds", "stem_worker_ready", "stem_build_info"}
    assert gauges["stem_queue_oldest_seconds"]["value"] == 1.5
    assert gauges["stem_queue_oldest_seconds"]["updatedAt"] == "2023-11-14T22:13:20.000Z"


def test_a_histogram_is_summed_up_and_bounded_by_its_buckets(found: dict[str, list[dict[str, Any]]]) -> None:
    mail, slow = found["histograms"]
    assert (mail["count"], mail["min"], mail["max"]) == (3, 0.0025, 1.0)
    assert mail["sum"] == pytest.approx(0.723)
    assert mail["avg"] == pytest.approx(0.241)
    assert mail["tags"] == {"task": "shop.mail", "queue": "default", "worker": "w-1"}
    assert (slow["count"], slow["min"], slow["max"]) == (1, 600.0, None)


def test_a_histogram_without_values_has_no_bounds() -> None:
    page = 'x_bucket{le="1.0"} 0.0\nx_bucket{le="+Inf"} 0.0\nx_count 0.0\nx_sum 0.0\n'
    (each,) = snapshot(f"# TYPE x histogram\n{page}", "h", NOW)["histograms"]
    assert (each["count"], each["min"], each["max"], each["avg"]) == (0, None, None, None)


@pytest.mark.parametrize("page", ["", "<html></html>", generate_latest(CollectorRegistry()).decode(), '{"a": 1}'])
def test_another_page_is_no_snapshot(page: str) -> None:
    with pytest.raises(ValueError, match=r"metrics|[Ii]nvalid|float"):
        snapshot(page, "h", NOW)
