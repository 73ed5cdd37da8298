"""The tasks that every system runs. They count themselves, outside the broker. Light: each executor loads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from stem_cli.bench.records import DIRECTORY, record

__all__ = ["hold", "noop"]

_HOLDING = 600.0  # longer than anybody waits


def noop(number: int) -> int:
    """Nothing but its record; its number is the result, so that there is one to store."""
    record(number)
    return number


def hold(number: int) -> int:
    """Hold its executor until that is killed; run again, it ends at once."""
    marker = Path(os.environ[DIRECTORY], f"held-{number}")
    is_first = not marker.exists()
    marker.touch()
    record(number)
    if is_first:
        time.sleep(_HOLDING)
    return number
