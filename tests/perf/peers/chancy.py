"""chancy, two workers of one process each, which run coroutines: the fastest of its executors. It keeps no results.

Run as a program it is one of those workers: its command has no way to say when a worker counts as dead.
"""

from __future__ import annotations

import asyncio
import logging

from chancy import Chancy, Queue, Worker, job  # type: ignore[import-not-found]  # is in the environment of the comparison only
from chancy.plugins.leadership import Leadership  # type: ignore[import-not-found]
from chancy.plugins.recovery import Recovery  # type: ignore[import-not-found]

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, Bulk, System, TaskName, broker_url

__all__ = ["ChancySystem", "hold", "noop"]

app = Chancy(
    broker_url(),
    plugins=[Leadership(poll_interval=2, timeout=int(LAPSE)), Recovery(poll_interval=2)],
    log=logging.getLogger("chancy"),  # of warnings only; its own tells of each task
)


@job()  # type: ignore[untyped-decorator]  # as it is not installed where types are checked
async def noop(number: int) -> int:
    return tasks.noop(number)


@job()  # type: ignore[untyped-decorator]
async def hold(number: int) -> int:
    return await asyncio.to_thread(tasks.hold, number)


class ChancySystem(System, Bulk):
    title = "chancy"
    distributions = ("chancy",)
    share = 0.2
    worker = (__name__,)
    copies = EXECUTORS

    def __init__(self) -> None:
        asyncio.run(_migrate())
        app.sync_declare(Queue("default", executor=Chancy.Executor.Async, eager_polling=True))

    def enqueue(self, task: TaskName, numbers: range) -> None:
        named = {"noop": noop, "hold": hold}[task].job
        for number in numbers:
            app.sync_push(named.with_kwargs(number=number))

    def enqueue_many(self, numbers: range) -> None:
        for _ in app.sync_push_many([noop.job.with_kwargs(number=number) for number in numbers]):
            pass  # it sends a batch when asked for the next


async def _migrate() -> None:
    async with app:
        await app.migrate()


async def _work() -> None:
    async with app, Worker(app, heartbeat_poll_interval=int(LAPSE / 3), heartbeat_timeout=int(LAPSE)) as worker:
        await worker.wait_for_shutdown()


if __name__ == "__main__":
    asyncio.run(_work())
