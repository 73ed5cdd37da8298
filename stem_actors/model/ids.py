"""Identifiers: time-ordered task ids, incarnations, and the rule for ids that producers choose."""

from __future__ import annotations

import os
import re
import time

from stem_actors.errors import UsageError

__all__ = ["check_task_id", "new_incarnation", "new_task_id"]

_CHOSEN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_task_id() -> str:
    """A UUID version 7 in 36 lower-case characters: unique without coordination, and sorted by creation time.

    Safe after a fork and from any thread: its random part comes from the operating system at each call.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_incarnation(name: str) -> str:
    """`name` plus a random part: identifies one start of a worker, so that a successor is never taken for it."""
    return f"{name}#{os.urandom(6).hex()}"


def check_task_id(chosen: str) -> str:
    """Return an id that a producer chose, or raise `UsageError` when it is not 1–128 of `[A-Za-z0-9_.:-]`."""
    if not _CHOSEN.fullmatch(chosen):
        raise UsageError(f"task id {chosen!r} is not usable: take 1 to 128 letters, digits or _ . : -")
    return chosen
