"""The application: one task, which fails as long as it has retries, and gets through when it is replayed."""

from __future__ import annotations

from stem_actors import RetryPolicy, Stem, current_task

__all__ = ["app", "process_invoice"]

app = Stem()
FAILURES = 3  # as many as the task has attempts


class LedgerUnavailable(Exception):
    """The service that keeps the books does not answer."""


@app.task(name="invoices.process", queue="invoices", max_retries=FAILURES - 1, retry_policy=RetryPolicy(default_delay=0.2))
def process_invoice(number: str) -> str:
    """Book an invoice. A replay goes on counting, so its first attempt is the fourth: by then the ledger is back."""
    attempt = current_task().attempt
    if attempt < FAILURES:
        raise LedgerUnavailable(f"the ledger did not take {number} (attempt {attempt})")
    return f"{number} is booked (attempt {attempt})"
