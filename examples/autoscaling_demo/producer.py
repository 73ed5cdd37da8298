"""Wait until the worker is at its least, enqueue bursts of tasks, and wait until it is there again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from tasks import app, resize

PATIENCE = 300.0
LOOK_EVERY = 0.2


def main() -> int:
    tasks, burst = int(os.environ["TASKS"]), int(os.environ["BURST"])
    pause, seconds = int(os.environ["PAUSE_MS"]) / 1000, int(os.environ["TASK_DURATION_MS"]) / 1000
    with app:
        least, _ = app.settings.autoscale or (1, 1)
        wait_until(lambda: executors() == least, "the worker without work")
        handles = []
        for first in range(0, tasks, burst):
            if first:
                time.sleep(pause)
            handles += app.enqueue_many(resize.call(image, seconds) for image in range(first, min(first + burst, tasks)))
            print(f"producer: {len(handles)} of {tasks} images are enqueued", flush=True)
        for handle in handles:
            handle.get(timeout=PATIENCE)
        print(f"producer: all {tasks} images are done", flush=True)
        wait_until(lambda: executors() == least, "the worker after its work")
    return 0


def executors() -> int | None:
    """How many the worker has, as its last heartbeat says; None before the first."""
    beats = app.stores.heartbeats.list_heartbeats()
    return beats[0]["extras"]["concurrency"] if beats else None


def wait_until(is_there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_there():
        if time.monotonic() > deadline:
            raise SystemExit(f"producer: {what} has {executors()} executors after {PATIENCE:g} s")
        time.sleep(LOOK_EVERY)
    print(f"producer: {what} has {executors()} executor(s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
