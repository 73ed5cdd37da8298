"""Takes memory from the host, within a bound that leaves it most of what is free."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from stem_chaos.nemesis.fault import Injection

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["SqueezeMemory", "free_bytes"]

_MOST_BYTES = 512 << 20
_SHARE = 4
"""At most every so many-th free byte is taken."""

_HOG = """
import sys, time
try:
    open("/proc/self/oom_score_adj", "w").write("1000")  # if memory ends all the same, let the kernel choose us
except OSError:
    pass
size, step = int(sys.argv[1]), 4096
taken = bytearray(size)
taken[::step] = b"x" * len(range(0, size, step))
print("taken", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class SqueezeMemory:
    """A process of its own takes memory and writes to every page of it, and holds it for as long as this lasts."""

    name: str = "squeeze-memory"
    scope: str = "memory"
    lasts: float = 5.0

    def begin(self, cluster: Cluster, chance: random.Random) -> Injection | None:
        size = min(_MOST_BYTES, free_bytes() // _SHARE)
        holder = cluster.accompany(_HOG, str(size))
        if holder is None:  # there was less than it seemed
            return None
        return Injection(f"{size >> 20} MiB", {"bytes": size, "holder": holder})

    def heal(self, cluster: Cluster, injection: Injection) -> None:
        cluster.dismiss(injection.detail["holder"])


def free_bytes() -> int:
    """What may still be taken here: of the host, or of the control group that we live in."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free
