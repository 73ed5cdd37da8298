"""The tasks of `stem bench`, as executors import them. Light: it is loaded by every executor.

Each run writes a record of its own into a file of its process, at once and outside the broker, so that nothing that was lost or
done twice can hide. Two applications, since a worker starts executors of each kind that its application has.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from stem_actors import Stem
from stem_actors.clock import SystemClock
from stem_cli.bench.records import DIRECTORY, RECORD

__all__ = ["QUEUE", "WAIT", "app", "async_app", "hold", "noop", "wait"]

QUEUE = "bench"
WAIT = 0.1  # seconds of each asynchronous task

app = Stem()
async_app = Stem()

_clock = SystemClock()
_files: dict[int, int] = {}  # by process, since an executor may be forked from one that has written


def _record(number: int) -> None:
    process = os.getpid()
    file = _files.get(process)
    if file is None:
        path = os.path.join(os.environ[DIRECTORY], f"{process}.records")
        file = _files[process] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, RECORD.pack(number, _clock.monotonic()))


@app.task(name="stem.bench.noop", queue=QUEUE, max_retries=0)
def noop(number: int, ballast: str | None = None) -> None:
    """Nothing but its record."""
    _record(number)


@app.task(name="stem.bench.hold", queue=QUEUE, max_retries=0)
def hold(number: int) -> None:
    """Hold its executor until that is killed; run again, it ends at once."""
    marker = Path(os.environ[DIRECTORY], f"held-{number}")
    is_first = not marker.exists()
    marker.touch()
    _record(number)
    if is_first:
        time.sleep(60)


@async_app.task(name="stem.bench.wait", queue=QUEUE, max_retries=0)
async def wait(number: int) -> None:
    """What waits for I/O."""
    await asyncio.sleep(WAIT)
    _record(number)
