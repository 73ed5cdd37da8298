"""The application: a report, on whichever queue is the default one."""

from __future__ import annotations

import time

from stem_actors import Stem, current_task

__all__ = ["app", "generate_report"]

app = Stem()


@app.task(name="report.generate", max_retries=3, soft_time_limit=5, hard_time_limit=10)
def generate_report(region: str) -> str:
    """Generate the report on a region."""
    task = current_task()
    task.heartbeat()
    time.sleep(0.75)
    task.progress(1.0, {"region": region})
    return f"Generated analytics report for {region} (attempt {task.attempt})"
