"""What a worker process is told by whoever starts it, who needs nothing else of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stem_actors.config import Settings
from stem_actors.executors.application import ApplicationSource

__all__ = ["NO_STORE", "WorkerOrders"]

NO_STORE = 74
"""Exit code of a worker whose store can never be used as it is: no directory, no permission, another program's file."""


@dataclass(frozen=True, slots=True)
class WorkerOrders:
    """Who the worker is to be, and what it is to run. Travels as a map of wire types."""

    settings: Settings
    worker_id: str
    source: ApplicationSource

    def to_wire(self) -> dict[str, Any]:
        source = asdict(self.source) | {"modules": list(self.source.modules)}
        return {"settings": self.settings.to_wire(), "worker_id": self.worker_id, "source": source}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> WorkerOrders:
        return cls(Settings.from_wire(wire["settings"]), wire["worker_id"], ApplicationSource(**wire["source"]))
