"""The application: a digest that nobody gets twice within a quarter of an hour."""

from __future__ import annotations

from stem_actors import Stem, current_task

__all__ = ["app", "send_digest"]

app = Stem()


@app.task(name="email.sendDigest", queue="mail", unique=True, unique_for=15 * 60)
def send_digest(user: int) -> str:
    """Send a user the news of the day."""
    return f"digest for user {user}, by task {current_task().id}"
