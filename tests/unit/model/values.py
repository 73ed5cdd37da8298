"""Deliveries for tests of what becomes of them."""

from __future__ import annotations

from typing import Any

from stem_actors.model.delivery import Delivery, Lease, State
from stem_actors.model.envelope import Envelope

__all__ = ["LEASE", "delivery_of"]

LEASE = Lease("t1", "me#1", "default", 30.0, 1000.0)


def delivery_of(state: State | None = None, lease: Lease = LEASE, body: bytes = b"body", **fields: Any) -> Delivery:
    """A delivery of task `shop.mail` with three retries, unless `fields` of its envelope say otherwise."""
    envelope = Envelope(1, "id-1", "shop.mail", [], {}, {}, 1000.0, None, 5, 3, None, "default", {})
    return Delivery(envelope._replace(**fields), state or State(), lease, body)
