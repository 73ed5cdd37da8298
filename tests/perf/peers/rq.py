"""RQ: by default a process for each task; `SimpleWorker` runs tasks in its own, which is faster and recovers worse."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq import Queue, Retry  # type: ignore[import-not-found]  # is in the environment of the comparison only

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, PATIENCE, RESULT_TTL, Bulk, KeepsResults, System, TaskName, broker_url

__all__ = ["RqSimpleSystem", "RqSystem"]

_BULK = 1000  # tasks in one pipeline, as many as Stem's client sends


def _options() -> dict[str, Any]:
    """Without `retry` a task whose process was killed counts as failed."""
    return {"result_ttl": RESULT_TTL, "retry": Retry(max=3)}


class RqSystem(System, Bulk, KeepsResults):
    title = "RQ"
    distributions = ("rq",)
    share = 0.01
    worker: tuple[str, ...] = ("rq.cli", "worker-pool", "--num-workers", str(EXECUTORS), "--url", broker_url(), "--quiet")

    def __init__(self) -> None:
        self._queue = Queue(connection=Redis.from_url(broker_url()))

    def enqueue(self, task: TaskName, numbers: range) -> None:
        function = {"noop": tasks.noop, "hold": tasks.hold}[task]
        for number in numbers:
            self._queue.enqueue(function, args=(number,), **_options())

    def enqueue_many(self, numbers: range) -> None:
        for start in range(0, len(numbers), _BULK):
            some = numbers[start : start + _BULK]
            self._queue.enqueue_many([Queue.prepare_data(tasks.noop, args=(number,), **_options()) for number in some])

    def ask(self, number: int) -> object:
        result = self._queue.enqueue(tasks.noop, args=(number,), **_options()).latest_result(timeout=int(PATIENCE))
        value: object = result.return_value
        return value


class RqSimpleSystem(RqSystem):
    title = "RQ, SimpleWorker"
    share = 0.02
    worker = (*RqSystem.worker, "--worker-class", "rq.worker.SimpleWorker")
