"""A supervision tree as others see it: plain values for heartbeats and gauges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stem_actors.supervision.events import ChildStatistics, SupervisorStatistics

__all__ = ["mailbox_depths", "tree_document"]


def tree_document(statistics: SupervisorStatistics | None) -> list[dict[str, Any]]:
    """The children, names as in `stem worker status --json`; a supervisor has `children` of its own."""
    return [_document(child) for child in statistics.children] if statistics is not None else []


def mailbox_depths(statistics: SupervisorStatistics | None) -> Iterator[tuple[str, int]]:
    """Every child's id and how many messages wait for it."""
    for child in statistics.children if statistics is not None else ():
        yield child.id, child.mailbox_depth
        yield from mailbox_depths(child.nested)


def _document(child: ChildStatistics) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": child.id,
        "state": child.state,
        "restarts": sum(child.restarts.values()),
        "reasons": dict(child.restarts),
        "mailbox": child.mailbox_depth,
        "lastProgressMs": round(child.progress_age * 1000),
        "handler": child.handler,
    }
    return document if child.nested is None else {**document, "children": tree_document(child.nested)}
