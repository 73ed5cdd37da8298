"""Two applications: one whose tasks go by Redis, and one whose tasks go by Postgres.

A worker serves one of them and has its settings in STEM_*. The enqueuer talks to both; for it each name has a prefix.
"""

from __future__ import annotations

import os
import time

from stem_actors import Stem, current_task

__all__ = ["postgres_app", "postgres_only", "redis_app", "redis_only"]


def application(prefix: str) -> Stem:
    """On the stores that variables with this prefix name, or where there are none, those without."""
    broker, backend = (os.environ.get(f"{prefix}_STEM_{name}") for name in ("BROKER_URL", "RESULT_BACKEND_URL"))
    return Stem(broker or None, backend or None)


redis_app = application("REDIS")
postgres_app = application("POSTGRES")


@redis_app.task(name="redis.only", queue="redis-tasks", max_retries=5)
def redis_only(name: str) -> str:
    """Something quick."""
    time.sleep(0.3)
    return f"{name} done by way of Redis (attempt {current_task().attempt})"


@postgres_app.task(name="postgres.only", queue="postgres-tasks", max_retries=3, soft_time_limit=5, hard_time_limit=12)
def postgres_only(name: str) -> str:
    """Something that belongs to what is in the database."""
    time.sleep(0.6)
    return f"{name} done by way of Postgres (attempt {current_task().attempt})"
