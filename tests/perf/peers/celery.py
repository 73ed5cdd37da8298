"""Celery with its default pool, prefork; late acknowledgement, since by default a killed task is lost; results."""

from __future__ import annotations

from celery import Celery  # type: ignore[import-not-found]  # is in the environment of the comparison only

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, PATIENCE, RESULT_TTL, KeepsResults, System, TaskName, broker_url

__all__ = ["CelerySystem", "app"]

app = Celery("perf", broker=broker_url(), backend=broker_url())
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": LAPSE},
    result_expires=RESULT_TTL,
    task_acks_late=True,
    task_reject_on_worker_lost=True,  # else a task whose process was killed counts as failed
)
noop = app.task(name="noop")(tasks.noop)
hold = app.task(name="hold")(tasks.hold)


class CelerySystem(System, KeepsResults):
    title = "Celery"
    distributions = ("celery", "kombu")
    share = 0.05
    worker = (
        *("celery", "-A", __name__, "worker"),
        *("--pool", "prefork", "--concurrency", str(EXECUTORS)),
        *("--without-gossip", "--without-mingle"),  # there is no other node to talk to
        *("--loglevel", "WARNING"),
    )

    def enqueue(self, task: TaskName, numbers: range) -> None:
        delay = {"noop": noop, "hold": hold}[task].delay
        for number in numbers:
            delay(number)

    def ask(self, number: int) -> object:
        return noop.delay(number).get(timeout=PATIENCE)
