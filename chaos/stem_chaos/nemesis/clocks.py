"""Steps the wall clock of a node and of all processes below it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.nemesis.victims import choose_node

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["StepClock"]

_STEPS = (-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0)


@dataclass(frozen=True, slots=True)
class StepClock:
    """A node's wall clock and that of all processes below it go wrong, for a while.

    No worker's clock matters where a server has one of its own: this hits nobody's work, and explains no duplicate.
    """

    name: str = "step-clock"
    scope: str = "clock"
    lasts: float = 5.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        if cluster.url.partition(":")[0] in ("sqlite", "file"):
            raise CannotInject(f"{self.name} needs a broker with a clock of its own; SQLite goes by that of its host")
        if not cluster.layout.steps_clocks:
            raise CannotInject(f"{self.name} needs nodes whose clocks can be stepped: start the cluster with steps_clocks")
        node = choose_node(cluster, chance)
        if node is None or node.clock is None:
            return None
        seconds = chance.choice(_STEPS)
        node.clock.step(seconds)
        return Injection(f"{node.name} by {seconds:+g} s", {"node": node.name, "seconds": seconds})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        for node in cluster.nodes:
            if node.name == injection.detail["node"] and node.clock is not None:
                node.clock.step(0.0)
