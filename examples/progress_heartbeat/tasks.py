"""The application: a task that says how far it is."""

from __future__ import annotations

import os
import time

from stem_actors import Stem, current_task

__all__ = ["app", "progress_demo"]

app = Stem()
STEPS = 5
SECONDS = float(os.environ.get("STEP_SECONDS") or 2)


@app.task(name="progress.demo", queue="progress")
def progress_demo(report: str) -> str:
    """Make a report in five steps. Progress is stored once a second at most, so a step that takes longer is seen by everybody."""
    task = current_task()
    for step in range(1, STEPS + 1):
        time.sleep(SECONDS)
        task.progress(step / STEPS, {"step": step, "of": STEPS})
    time.sleep(SECONDS)  # puts its tools away
    return f"{report} is done"
