"""`stem observe metrics`: what running nodes have counted, from their `/metrics`, as one JSON snapshot.

Prometheus keeps buckets, not values: a histogram's `min` and `max` are the bounds of the lowest and the highest bucket that holds
anything, null where that has no bound. Each entry names the node it is from; nothing is added up.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from stem_actors.config import Settings
from stem_actors.errors import UsageError
from stem_actors.model.json_names import iso_time
from stem_cli.connection import duration_of, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["metrics", "snapshot"]

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def metrics(args: argparse.Namespace, output: Output) -> int:
    timeout = duration_of(args.timeout, "--timeout")
    if not timeout:
        raise UsageError("--timeout needs a duration above 0, such as 5s")
    nodes = [_page(node) for node in args.node] or [_page(_own(resolved(args).settings))]
    found: dict[str, list[dict[str, Any]]] = {"counters": [], "histograms": [], "gauges": []}
    silent = 0
    for node in dict.fromkeys(nodes):
        try:
            read = snapshot(_fetch(node, timeout), node, time.time())
        except (OSError, HTTPException, ValueError) as error:
            output.message(f"{node} did not answer with metrics: {error}")
            silent += 1
        else:
            for kind, entries in read.items():
                found[kind] += entries
    if silent == len(set(nodes)):
        return ExitCode.FAILED
    output.document(found)
    return ExitCode.PARTIAL if silent else ExitCode.OK


def _own(settings: Settings) -> str:
    if settings.admin_address is None:
        raise UsageError("nodes here serve no metrics (STEM_ADMIN=off): name one with --node http://HOST:PORT")
    host, port = settings.admin_address
    host = _EVERYWHERE.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _page(node: str) -> str:
    """The address of a node's metrics; it may be given as `HOST:PORT`, with or without a path."""
    url = node if "://" in node else f"http://{node}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"--node is {node!r}, which is not a URL such as http://web-1:9808")
    return parts._replace(path="/metrics").geturl() if parts.path in ("", "/") else url


def _fetch(page: str, timeout: float) -> str:
    opener = build_opener(ProxyHandler({}))  # a node is asked directly, as Prometheus would
    with opener.open(page, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body.decode()


# ---------------------------------------------------------------- exposition -> snapshot


@dataclass(slots=True)
class _Series:
    """One histogram: cumulative counts by upper bound, in order."""

    buckets: list[tuple[float, float]] = field(default_factory=list)
    count: float = 0.0
    sum: float = 0.0

    def as_json(self) -> dict[str, Any]:
        grown = [
            bound
            for (bound, total), (_, before) in zip(self.buckets, [(0.0, 0.0), *self.buckets], strict=False)
            if total > before
        ]
        bounds = [0.0, *(bound for bound, _ in self.buckets)]
        return {
            "count": _plain(self.count),
            "sum": self.sum,
            "min": bounds[bounds.index(grown[0], 1) - 1] if grown else None,
            "max": grown[-1] if grown and math.isfinite(grown[-1]) else None,
            "avg": self.sum / self.count if self.count else None,
        }


def snapshot(exposition: str, node: str, now: float) -> dict[str, list[dict[str, Any]]]:
    """Counters, histograms and gauges of a page in the text format; `now`: when it was read.

    Raises:
        ValueError: it is no such page.
    """
    counters: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    gauges: list[dict[str, Any]] = []
    for family in text_string_to_metric_families(exposition):
        if family.type == "histogram":
            histograms += _histograms(family, node)
        elif family.type == "counter":
            counters += _values(family, node)
        elif family.type == "gauge":
            gauges += [{**each, "updatedAt": iso_time(now)} for each in _values(family, node)]
    if not (counters or histograms or gauges):
        raise ValueError("that page holds no metrics")
    return {"counters": counters, "histograms": histograms, "gauges": gauges}


def _values(family: Family, node: str) -> Iterator[dict[str, Any]]:
    for sample in family.samples:
        yield {"name": sample.name, "tags": sample.labels, "value": _plain(sample.value), "node": node}


def _histograms(family: Family, node: str) -> Iterator[dict[str, Any]]:
    series: dict[tuple[tuple[str, str], ...], _Series] = {}
    for sample in family.samples:
        tags = {name: value for name, value in sample.labels.items() if name != "le"}
        each = series.setdefault(tuple(sorted(tags.items())), _Series())
        match sample.name.removeprefix(family.name):
            case "_bucket":
                each.buckets.append((float(sample.labels["le"]), sample.value))
            case "_count":
                each.count = sample.value
            case "_sum":
                each.sum = sample.value
    for key, each in series.items():
        yield {"name": family.name, "tags": dict(key), **each.as_json(), "node": node}


def _plain(number: float) -> float | int | None:
    """As JSON has it: whole numbers without a point, and what is no number not at all."""
    if not math.isfinite(number):
        return None
    return int(number) if number == int(number) else number
