"""The application: one task. Executors import this module, so it holds nothing of the HTTP service."""

from __future__ import annotations

import time

from stem_actors import Stem, current_task

__all__ = ["app", "send_greeting"]

app = Stem()  # where tasks wait is a setting: STEM_BROKER_URL


@app.task(name="greeting.send", max_retries=3, soft_time_limit=5.0, hard_time_limit=8.0)
def send_greeting(name: str) -> str:
    """Greet somebody, slowly: it stands for a mail server that takes its time."""
    time.sleep(0.25)
    return f"Hello {name} (attempt {current_task().attempt})"
