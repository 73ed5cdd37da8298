"""The application: its tasks wait in Redis, their results go to Postgres over TLS. Settings alone make that so."""

from __future__ import annotations

import time

from stem_actors import Stem, current_task

__all__ = ["app", "generate_report"]

app = Stem()


@app.task(name="reports.generate", queue="reports", max_retries=3)
def generate_report(name: str) -> str:
    """Generate a report."""
    time.sleep(0.5)
    return f"Generated {name} (attempt {current_task().attempt})"
