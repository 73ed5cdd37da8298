"""Lets a process of the cluster die between two steps of its work, at a fault point."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.points import POINTS, arm, disarm

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["CrashPoint"]


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """Arms a point; the first process that reaches it dies there, and writes down itself who that was. `point`: None for any."""

    name: str = "crash-point"
    scope: str = "points"
    lasts: float = 2.0
    point: str | None = None

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        if not cluster.layout.is_recorded:
            raise CannotInject(f"{self.name} needs nodes with fault points: start them with the probe")
        point = self.point or chance.choice(POINTS)
        arm(cluster.directory, point)
        return Injection(point, {"point": point})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        disarm(cluster.directory, injection.detail["point"])
