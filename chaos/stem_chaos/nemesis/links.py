"""Maltreats the link between the cluster and its broker, all of it or one node's part; only where there is one (TCP, no TLS)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stem_chaos.link import Proxy
from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.nemesis.victims import choose_node, covered

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["IsolateNode", "LinkFault", "blackhole_link", "cut_link", "delay_link", "narrow_link", "reset_link"]


@dataclass(frozen=True, slots=True)
class LinkFault:
    """Does one thing to every link of the cluster; `does` says what."""

    name: str
    does: str
    act: Callable[[Proxy], None]
    lasts: float
    figures: dict[str, Any]
    scope: str = "link"

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        for link in _links(cluster, self.name):
            self.act(link)
        return Injection("every link", {"everything": True, **self.figures})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        if self.lasts:  # else there is nothing to undo, least of all what another one does meanwhile
            for link in cluster.links:
                link.heal()


def cut_link() -> LinkFault:
    return LinkFault("cut-link", "Connections are reset, and new ones refused.", Proxy.cut, 1.0, {})


def reset_link() -> LinkFault:
    return LinkFault("reset-link", "Connections are reset once.", Proxy.reset, 0.0, {})


def blackhole_link() -> LinkFault:
    return LinkFault("blackhole-link", "Nothing passes, and no connection ends.", Proxy.blackhole, 2.0, {})


def delay_link(seconds: float = 0.1) -> LinkFault:
    does = f"Everything arrives {1000 * seconds:.0f} ms later."
    return LinkFault("delay-link", does, lambda link: link.delay(seconds), 5.0, {"latency": seconds})


def narrow_link(bytes_per_second: int = 64_000) -> LinkFault:
    does = f"No more than {bytes_per_second // 1000} kB a second get through."
    figures = {"bytes_per_second": bytes_per_second}
    return LinkFault("narrow-link", does, lambda link: link.throttle(bytes_per_second), 5.0, figures)


@dataclass(frozen=True, slots=True)
class IsolateNode:
    """A partition: one node reaches the broker no more, while all others and the clients do."""

    name: str = "isolate-node"
    scope: str = "link"
    lasts: float = 4.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        _links(cluster, self.name)
        node = choose_node(cluster, chance)
        if node is None or node.link is None:
            return None
        node.link.blackhole()
        return Injection(node.name, {**covered(node.workers()), "node": node.name})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        for node in cluster.nodes:
            if node.name == injection.detail["node"] and node.link is not None:
                node.link.heal()


def _links(cluster: Cluster, name: str) -> list[Proxy]:
    if cluster.link is None:
        raise CannotInject(f"{name} needs a broker that is reached without TLS: a private server, or a URL of Redis or Postgres")
    return cluster.links
