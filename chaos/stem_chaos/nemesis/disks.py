"""Fills the disk under the SQLite database; only one that is small, and ours.

SQLite's own limit, `max_page_count`, holds for the connection that sets it and no other, so it cannot stand in for a full disk.
"""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stem_chaos.nemesis.fault import CannotInject, Injection
from stem_chaos.servers import PrivateSqlite

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["FillDisk"]

_STEP_BYTES = 1 << 20
_LEFT_BYTES = 64 * 1024
"""The last pages of a file system are never the same number."""


@dataclass(frozen=True, slots=True)
class FillDisk:
    """What was stored stays, nothing more can be: producers are refused, and workers wait with what they have to write."""

    name: str = "fill-disk"
    scope: str = "broker"
    lasts: float = 3.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        server = cluster.server
        if not isinstance(server, PrivateSqlite):
            raise CannotInject(f"{self.name} needs a private SQLite database: run with --broker sqlite")
        if not server.is_mounted:
            why = server.refusal or "it was not asked for"
            raise CannotInject(
                f"{self.name} needs the database on a small file system of its own, which only root may mount ({why}); "
                "this disk is not ours to fill"
            )
        return Injection(str(server.directory), {"everything": True, "bytes": _fill(_filler(server))})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        if isinstance(cluster.server, PrivateSqlite):
            _filler(cluster.server).unlink(missing_ok=True)


def _fill(filler: Path) -> int:
    """Take what is free, but for a little; how much that was. Others write meanwhile, so the end comes when it comes."""
    zeros, size = bytes(_STEP_BYTES), 0
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while (left := shutil.disk_usage(filler.parent).free - _LEFT_BYTES) > 0:
            size += file.write(zeros[:left])
    return size


def _filler(server: PrivateSqlite) -> Path:
    return server.directory / "filler"
