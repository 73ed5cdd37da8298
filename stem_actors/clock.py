"""The only source of time. Everything that waits or stamps is given a `Clock`; nothing asks the operating system itself."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two readings: one to tell people and other hosts, one to measure with."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump when the host's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump and run on while the host sleeps.

        Comparable between the processes of one host (not between hosts), so a lease's end can travel to an executor.
        """
        ...


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The host's clocks. Stateless: any thread, any number of instances."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(_BOOT_CLOCK)
