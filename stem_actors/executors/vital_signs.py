"""What the kernel says of an executor: whether it is stopped, and how much memory it has. Asks nothing of the process itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MADE_UP", "VitalSigns", "read_vital_signs"]

MADE_UP = 1 << 30
"""Process ids from here on are beyond every real one: those of executors that are played."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_STATE, _FLAGS, _RESIDENT = 0, 6, 21  # places in /proc/PID/stat behind the name
_PF_EXITING = 0x4


@dataclass(frozen=True, slots=True)
class VitalSigns:
    """`is_stopped`: by SIGSTOP or its like, not by a debugger. `resident`: bytes of memory in use. `is_exiting`: it is dying."""

    is_stopped: bool
    resident: int
    is_exiting: bool = False


def read_vital_signs(pid: int) -> VitalSigns | None:
    """Of a process that has not been reaped; None when it is gone or made up, or where there is no /proc."""
    if pid >= MADE_UP:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return VitalSigns(fields[_STATE] == "T", int(fields[_RESIDENT]) * _PAGE, bool(int(fields[_FLAGS]) & _PF_EXITING))
