"""The application of the lab: one task that takes its time, so that there is something to look at and to stop."""

from __future__ import annotations

import time

from stem_actors import Stem, TaskReleased, TaskRevoked, current_task

__all__ = ["app", "take_long"]

app = Stem()  # STEM_BROKER_URL
STEP = 0.1  # seconds


@app.task(name="control.long", queue="control")
def take_long(label: str, seconds: float) -> str:
    """Count the time away, and say when it is stopped on the way."""
    task, steps = current_task(), round(seconds / STEP)
    try:
        for step in range(steps):
            time.sleep(STEP)
            if step % 10 == 9:
                task.progress((step + 1) / steps, {"label": label})
    except TaskRevoked:
        print(f"task {label} was revoked and tidies up", flush=True)
        raise
    except TaskReleased:
        print(f"task {label} has to leave this worker and begins again elsewhere", flush=True)
        raise
    return f"{label} took {seconds:g} s"
