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
from stem_cli.bench.records import DIRECTORY, record

__all__ = ["QUEUE", "WAIT", "app", "async_app", "hold", "noop", "wait"]

QUEUE = "bench"
WAIT = 0.1  # seconds of each asynchronous task

app = Stem()
async_app = Stem()


@app.task(name="stem.bench.noop", queue=QUEUE, max_retries=0)
def noop(number: int, ballast: str | None = None) -> None:
    """Nothing but its record."""
    record(number)


@app.task(name="stem.bench.hold", queue=QUEUE, max_retries=0)
def hold(number: int) -> None:
    """Hold its executor until that is killed; run again, it ends at once."""
    marker = Path(os.environ[DIRECTORY], f"held-{number}")
    is_first = not marker.exists()
    marker.touch()
    record(number)
    if is_first:
        time.sleep(60)


@async_app.task(name="stem.bench.wait", queue=QUEUE, max_retries=0)
async def wait(number: int) -> None:
    """What waits for I/O."""
    await asyncio.sleep(WAIT)
    record(number)
