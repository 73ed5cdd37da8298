"""The application, shared by workers and the enqueue API: six tasks on three queues.

Each waits `delayMs`, as if it asked another service, and fails when it is told to. One that fails is tried again, later each
time; after its last try it is a dead letter (`stem dlq list --queue reporting`).
"""

from __future__ import annotations

import os
import time
from typing import Any

from stem_actors import RetryPolicy, Stem

__all__ = ["TASKS", "app"]

app = Stem()  # STEM_BROKER_URL, STEM_RESULT_BACKEND_URL

_LATER = RetryPolicy(backoff=True, default_delay=1.0, backoff_max=30.0)


def _work(what: str, name: str, delay_ms: int, fail: bool) -> dict[str, Any]:
    time.sleep(delay_ms / 1000)
    if fail:
        raise RuntimeError(f"{what} for {name} failed, as it was told to")
    return {"done": f"{what} for {name}", "executor": os.getpid()}


@app.task(name="greeting.send", queue="greetings", max_retries=5, soft_time_limit=10, hard_time_limit=20, retry_policy=_LATER)
def send_greeting(name: str, delay_ms: int = 100, fail: bool = False) -> dict[str, Any]:
    """Greet a customer."""
    return _work("greeting", name, delay_ms, fail)


@app.task(name="customer.followup", queue="greetings", max_retries=4, soft_time_limit=12, hard_time_limit=22, retry_policy=_LATER)
def follow_up(name: str, delay_ms: int = 200, fail: bool = False) -> dict[str, Any]:
    """Ask a customer how it went."""
    return _work("follow-up", name, delay_ms, fail)


@app.task(name="billing.charge", queue="billing", max_retries=5, soft_time_limit=12, hard_time_limit=24, retry_policy=_LATER)
def charge(name: str, delay_ms: int = 300, fail: bool = False) -> dict[str, Any]:
    """Charge a customer."""
    return _work("charge", name, delay_ms, fail)


@app.task(name="billing.settlement", queue="billing", max_retries=3, soft_time_limit=10, hard_time_limit=18, retry_policy=_LATER)
def settle(name: str, delay_ms: int = 400, fail: bool = False) -> dict[str, Any]:
    """Settle the charges of a day."""
    return _work("settlement", name, delay_ms, fail)


@app.task(name="reports.aggregate", queue="reporting", max_retries=2, soft_time_limit=12, hard_time_limit=24, retry_policy=_LATER)
def aggregate(name: str, delay_ms: int = 500, fail: bool = False) -> dict[str, Any]:
    """Add figures up."""
    return _work("report", name, delay_ms, fail)


@app.task(name="reports.publish", queue="reporting", max_retries=2, soft_time_limit=10, hard_time_limit=18, retry_policy=_LATER)
def publish(name: str, delay_ms: int = 200, fail: bool = False) -> dict[str, Any]:
    """Publish a report."""
    return _work("publication", name, delay_ms, fail)


TASKS = {task.name: task for task in (send_greeting, follow_up, charge, settle, aggregate, publish)}
