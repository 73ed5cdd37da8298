"""The node's metrics: what its workers counted, as Prometheus reads it.

Owns the totals. Workers send growth, so a worker that starts anew adds to what its predecessor counted; gauges are the last
value, and go with the worker that sent them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from stem_actors.metrics import TABLE, Kind, Metric, Sample

__all__ = ["NodeMetrics"]

_OTHER = "_other"


class NodeMetrics(Collector):
    """Totals of all workers of a node. Any thread."""

    def __init__(self, max_tasks: int) -> None:
        self._max_tasks = max_tasks
        self._tasks: set[str] = set()
        self._totals: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], list[float]]] = {}
        self._gauges: dict[str, Sequence[Sample]] = {}
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def add(self, samples: Iterable[Sample]) -> None:
        """Growth of a worker's counters and histograms. What the table does not know is left out."""
        with self._lock:
            for name, labels, value in samples:
                metric = TABLE.get(name)
                if metric is None or len(labels) != len(metric.labels):
                    continue
                key = self._key(metric, labels)
                if metric.kind is Kind.HISTOGRAM:
                    cells = self._histograms.setdefault(name, {}).setdefault(key, [0.0] * (len(metric.buckets) + 3))
                    cells[:] = [old + new for old, new in zip(cells, value, strict=True)]
                else:
                    totals = self._totals.setdefault(name, {})
                    totals[key] = totals.get(key, 0.0) + value

    def count(self, name: str, *labels: str) -> None:
        """Count one event of the node's own."""
        self.add([[name, list(labels), 1]])

    def set_gauges(self, worker_id: str, samples: Sequence[Sample]) -> None:
        """The gauges of one worker, in place of its last ones."""
        with self._lock:
            self._gauges[worker_id] = samples

    def forget(self, worker_id: str) -> None:
        """A worker is gone, and its gauges with it."""
        with self._lock:
            self._gauges.pop(worker_id, None)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that `accept` asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def collect(self) -> Iterator[Family]:
        """All families of the table that have a value; for the registry."""
        with self._lock:
            totals = {name: dict(series) for name, series in self._totals.items()}
            histograms = {name: {key: list(cells) for key, cells in series.items()} for name, series in self._histograms.items()}
            gauges = [sample for samples in self._gauges.values() for sample in samples]
        for name, series in totals.items():
            counter = CounterMetricFamily(name, TABLE[name].help, labels=TABLE[name].labels)
            for key, total in series.items():
                counter.add_metric(key, total)
            yield counter
        for name, cells_by_key in histograms.items():
            yield _histogram(TABLE[name], cells_by_key)
        yield from _gauge_families([*gauges, ["stem_build_info", [_version()], 1]])

    def _key(self, metric: Metric, labels: Sequence[str]) -> tuple[str, ...]:
        if metric.labels[0] != "task" or labels[0] in self._tasks:
            return tuple(labels)
        if len(self._tasks) < self._max_tasks:
            self._tasks.add(labels[0])
            return tuple(labels)
        return (_OTHER, *labels[1:])


def _histogram(metric: Metric, series: dict[tuple[str, ...], list[float]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for key, cells in series.items():
        cumulative, buckets = 0.0, []
        for bound, count in zip((*map(str, metric.buckets), "+Inf"), cells, strict=False):
            cumulative += count
            buckets.append((bound, cumulative))
        family.add_metric(key, buckets, sum_value=cells[-1])
    return family


def _gauge_families(samples: Sequence[Sample]) -> Iterator[Family]:
    families: dict[str, dict[tuple[str, ...], float]] = {}
    for name, labels, value in samples:
        if name in TABLE and len(labels) == len(TABLE[name].labels):
            families.setdefault(name, {})[tuple(labels)] = value
    for name, series in families.items():
        family = GaugeMetricFamily(name, TABLE[name].help, labels=TABLE[name].labels)
        for key, value in series.items():
            family.add_metric(key, value)
        yield family


def _version() -> str:
    try:
        return version("stem-actors")
    except PackageNotFoundError:
        return "unknown"
