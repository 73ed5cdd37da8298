"""taskiq on Redis streams, the one of its brokers that acknowledges; results; uvloop.

Its no-op is a coroutine, as is usual there: a plain function would take a thread each time.
"""

from __future__ import annotations

import asyncio

import uvloop  # type: ignore[import-not-found]  # is in the environment of the comparison only
from taskiq_redis import (  # type: ignore[import-not-found]
    RedisAsyncResultBackend,
    RedisStreamBroker,
)

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, PATIENCE, RESULT_TTL, KeepsResults, System, TaskName, broker_url

__all__ = ["TaskiqSystem", "broker"]

broker = RedisStreamBroker(
    broker_url(),
    idle_timeout=int(1000 * LAPSE),
    unacknowledged_lock_timeout=LAPSE,  # else the lock of a killed process stays for ever
).with_result_backend(RedisAsyncResultBackend(broker_url(), result_ex_time=RESULT_TTL))


async def _noop(number: int) -> int:
    return tasks.noop(number)


noop = broker.task(task_name="noop")(_noop)
hold = broker.task(task_name="hold")(tasks.hold)


class TaskiqSystem(System, KeepsResults):
    title = "taskiq streams"
    distributions = ("taskiq", "taskiq-redis")
    share = 0.2
    worker = ("taskiq", "worker", f"{__name__}:broker", "--workers", str(EXECUTORS), "--log-level", "WARNING")

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(broker.startup())

    def enqueue(self, task: TaskName, numbers: range) -> None:
        self._runner.run(_enqueue(task, numbers))

    def ask(self, number: int) -> object:
        return self._runner.run(_ask(number))


async def _enqueue(task: TaskName, numbers: range) -> None:
    kiq = {"noop": noop, "hold": hold}[task].kiq
    for number in numbers:
        await kiq(number)


async def _ask(number: int) -> object:
    result = await (await noop.kiq(number)).wait_result(check_interval=0.01, timeout=PATIENCE)
    result.raise_for_error()
    value: object = result.return_value
    return value
