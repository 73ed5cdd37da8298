"""The pool's state as others see it: a value for heartbeats and readiness."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stem_actors.actors.flights import Flights, Stage
from stem_actors.actors.slots import Slot

__all__ = ["GetReport", "PoolReport", "describe"]

_MOST_RUNS = 50


@dataclass(frozen=True, slots=True)
class GetReport:
    """Tell the heartbeat a `PoolReport`; asked, it is the reply as well."""


@dataclass(frozen=True, slots=True)
class PoolReport:
    """`active` lists at most 50 runs; `queues` holds what is in flight of each.

    `unkillable` executors are beside the slots, of which `slots` are of one kind.
    """

    inflight: int
    waiting: int
    running: int
    credit: int
    free_slots: int
    ready_executors: int
    executors: Sequence[Mapping[str, Any]]
    states: Mapping[str, int]
    queues: Mapping[str, int]
    active: Sequence[Mapping[str, Any]]
    is_draining: bool
    succeeded: int
    failed: int
    slots: int = 0
    unkillable: int = 0
    prefetch: int = 0


def describe(
    flights: Flights,
    slots: Sequence[Slot],
    now: float,
    waiting: int,
    credit: int,
    is_draining: bool,
    ended: Mapping[str, int],
    unkillable: int,
    prefetch: int,
) -> PoolReport:
    """Look at the pool's books."""
    ready = [slot for slot in slots if slot.is_ready]
    running = [flight for flight in flights if flight.stage is Stage.INSIDE]
    return PoolReport(
        inflight=len(flights),
        waiting=waiting,
        running=len(running),
        credit=credit,
        free_slots=sum(1 for slot in ready if slot.is_open(now) and slot.inside == 0),
        ready_executors=len(ready),
        executors=[
            {"pid": slot.process.pid, "state": slot.state.value, "inside": slot.inside}
            for slot in slots
            if slot.process is not None
        ],
        states=Counter({"unkillable": unkillable})
        + Counter(slot.state.value for slot in slots if slot.is_wanted or slot.process is not None),
        queues=Counter(flight.delivery.lease.queue for flight in flights),
        active=[
            {
                "id": flight.delivery.envelope.id,
                "task": flight.delivery.envelope.name,
                "queue": flight.delivery.lease.queue,
                "attempt": flight.delivery.state.attempt,
                "runtimeMs": round(1000 * slots[flight.slot].running_for(flight, now)),
            }
            for flight in itertools.islice(running, _MOST_RUNS)
        ],
        is_draining=is_draining,
        succeeded=ended.get("succeeded", 0),
        failed=ended.get("other", 0),
        slots=max(Counter(slot.is_async for slot in slots if slot.is_wanted).values(), default=0),
        unkillable=unkillable,
        prefetch=prefetch,
    )
