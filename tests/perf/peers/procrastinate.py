"""Procrastinate, two workers of one process each. It keeps no results.

Its no-op is a coroutine, as is usual there: a plain function would take a thread each time. What a dead worker held is enqueued
again by a periodic task that its users are told to write.
"""

from __future__ import annotations

from procrastinate import App, JobContext, PsycopgConnector  # type: ignore[import-not-found]  # of the comparison's environment

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, Bulk, System, TaskName, broker_url

__all__ = ["ProcrastinateSystem", "app"]

_BULK = 1000  # tasks in one statement, as many as Stem's client sends
_CONCURRENCY = 10  # coroutines in each process

app = App(
    connector=PsycopgConnector(conninfo=broker_url()),
    worker_defaults={
        "concurrency": _CONCURRENCY,
        "update_heartbeat_interval": LAPSE / 3,
        "stalled_worker_timeout": LAPSE,
    },
)


@app.task(name="noop")  # type: ignore[untyped-decorator]  # as it is not installed where types are checked
async def noop(number: int) -> int:
    return tasks.noop(number)


hold = app.task(name="hold")(tasks.hold)


@app.periodic(cron="* * * * * */2")  # type: ignore[untyped-decorator]
@app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)  # type: ignore[untyped-decorator]
async def retry_stalled(context: JobContext, timestamp: int) -> None:
    for job in await context.app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LAPSE):
        await context.app.job_manager.retry_job(job)


class ProcrastinateSystem(System, Bulk):
    title = "Procrastinate"
    distributions = ("procrastinate",)
    share = 0.05
    worker = ("procrastinate", "--log-level", "warning", "--app", f"{__name__}.app", "worker")
    copies = EXECUTORS

    def __init__(self) -> None:
        app.open()
        app.schema_manager.apply_schema()

    def enqueue(self, task: TaskName, numbers: range) -> None:
        defer = {"noop": noop, "hold": hold}[task].defer
        for number in numbers:
            defer(number=number)

    def enqueue_many(self, numbers: range) -> None:
        for start in range(0, len(numbers), _BULK):
            noop.batch_defer(*({"number": number} for number in numbers[start : start + _BULK]))
