"""`Fault`: something that can be done to a running cluster, and `Injection`: one time that it was done."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["CannotInject", "Fault", "Injection"]


class CannotInject(Exception):
    """This fault is not possible here at all (a broker of another kind, no permission): the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault that took effect. `target` names it for people, `detail` for checkers.

    `detail`: `pids`, the processes whose work it may have ended or stopped; `incarnations`, the holders whose leases it covers;
    `everything`: true when the broker or the network was hit, hence every lease; `forgets`: true when the broker may lose what it
    had acknowledged. A killed holder never comes back, so its leases stay covered when the fault itself is over.
    """

    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Fault(Protocol):
    """One kind of fault. `begin` and `heal` come from the nemesis's thread, never two at a time.

    `scope`  of faults with the same scope, one that lasts is healed before the next begins
    `lasts`  seconds until it is healed, unless the schedule says otherwise; 0: it heals itself
    """

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def lasts(self) -> float: ...

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        """Inject it; None when there is nothing right now that it could be done to.

        Raises:
            CannotInject: it never will be possible in this cluster.
        """
        ...

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        """Undo it; nothing to do where the cluster heals itself (what was killed is started again)."""
        ...
