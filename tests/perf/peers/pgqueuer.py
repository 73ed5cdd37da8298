"""PgQueuer on asyncpg, two workers of one process each, which runs the tasks as well. It keeps no results.

Its tasks are coroutines with one payload of bytes. Run as a program this is one of those workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg  # type: ignore[import-not-found]  # is in the environment of the comparison only
import uvloop  # type: ignore[import-not-found]
from pgqueuer import PgQueuer, run  # type: ignore[import-not-found]
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
from pgqueuer.models import Job  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, Bulk, System, TaskName, broker_url

__all__ = ["PgQueuerSystem", "consumer"]

_BULK = 1000  # tasks in one statement, as many as Stem's client sends
_BATCH = 100  # tasks that a worker takes, and settles, at once


@asynccontextmanager
async def consumer() -> AsyncIterator[PgQueuer]:
    connection = await asyncpg.connect(broker_url())
    try:
        worker = PgQueuer(AsyncpgDriver(connection))

        @worker.entrypoint("noop")  # type: ignore[untyped-decorator]  # as it is not installed where types are checked
        async def noop(job: Job) -> None:
            tasks.noop(int(job.payload))

        @worker.entrypoint("hold")  # type: ignore[untyped-decorator]
        async def hold(job: Job) -> None:
            await asyncio.to_thread(tasks.hold, int(job.payload))

        yield worker
    finally:
        await connection.close()


class PgQueuerSystem(System, Bulk):
    title = "PgQueuer"
    distributions = ("pgqueuer", "asyncpg")
    share = 0.5
    worker = (__name__,)
    copies = EXECUTORS

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._queries = self._runner.run(_installed())

    def enqueue(self, task: TaskName, numbers: range) -> None:
        self._runner.run(_enqueue(self._queries, task, numbers))

    def enqueue_many(self, numbers: range) -> None:
        self._runner.run(_enqueue_many(self._queries, numbers))


async def _installed() -> Queries:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(broker_url())))
    await queries.install()
    return queries


async def _enqueue(queries: Queries, task: TaskName, numbers: range) -> None:
    for number in numbers:
        await queries.enqueue(task, str(number).encode())


async def _enqueue_many(queries: Queries, numbers: range) -> None:
    for start in range(0, len(numbers), _BULK):
        some = numbers[start : start + _BULK]
        await queries.enqueue(["noop"] * len(some), [str(number).encode() for number in some], [0] * len(some))


if __name__ == "__main__":
    logging.basicConfig()
    uvloop.run(run(consumer, batch_size=_BATCH, heartbeat_timeout=timedelta(seconds=LAPSE)))  # what its command does
