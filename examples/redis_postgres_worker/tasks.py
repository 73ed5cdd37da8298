"""The application: its tasks wait in Redis, their results are kept in Postgres. Nothing here knows of that."""

from __future__ import annotations

import time

from stem_actors import Stem, current_task

__all__ = ["app", "process"]

app = Stem()


@app.task(name="hybrid.process", queue="hybrid", max_retries=3, soft_time_limit=5, hard_time_limit=10)
def process(item: str) -> str:
    """Process an item."""
    time.sleep(0.5)
    return f"Processed {item} (attempt {current_task().attempt})"
