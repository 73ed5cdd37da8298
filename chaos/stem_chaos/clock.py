"""The wall clock of one node and of every process below it, apart from the host's: it can be stepped while they run."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from stem_chaos import startup

__all__ = ["SteppedClock"]


class SteppedClock:
    """A clock that is off by what stands in its file. `environment` of a process makes Python use it there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.step(0.0)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        folder = str(Path(startup.__file__).parent)
        path = os.pathsep.join(filter(None, (folder, base.get("PYTHONPATH"))))
        return {**base, "PYTHONPATH": path, "STEM_CHAOS_CLOCK": str(self._path)}

    def step(self, seconds: float) -> None:
        """Let it be so far ahead of the host's (behind, when negative) from now on."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, struct.pack("d", seconds), 0)  # in place: it is mapped where it is read
        finally:
            os.close(fd)
