"""`Plain`: what most workloads are, so many calls a second and nothing of their own to observe or check."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from stem_chaos.checker.finding import Checker
from stem_chaos.workload.tasks import APP
from stem_chaos.workload.workload import Enqueue, arrivals

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain:
    """A workload of one kind of call. `rate`: calls a second."""

    rate: float

    name: ClassVar[str]
    app: ClassVar[str] = APP

    @abstractmethod
    def operation(self, at: float, number: int, chance: random.Random) -> Enqueue:
        """The call with this number, from 0."""

    def prepare(self, directory: Path) -> None:
        """Nothing to make."""

    def operations(self, chance: random.Random, duration: float) -> Iterator[Enqueue]:
        return (self.operation(at, number, chance) for number, at in enumerate(arrivals(chance, self.rate, duration)))

    def observe(self, directory: Path) -> Mapping[str, Any]:
        return {}

    def checkers(self) -> Sequence[Checker]:
        return ()
