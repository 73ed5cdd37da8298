"""Stem as it comes: no setting but the number of executors, the time that results are kept, and a free port."""

from __future__ import annotations

from stem_actors import Settings, Stem
from tests.perf import tasks
from tests.perf.systems import EXECUTORS, PATIENCE, RESULT_TTL, Bulk, KeepsResults, System, TaskName, broker_url

__all__ = ["StemSystem", "app"]

app = Stem(settings=Settings(broker_url=broker_url(), result_ttl=RESULT_TTL))
noop = app.task(name="noop")(tasks.noop)
hold = app.task(name="hold")(tasks.hold)


class StemSystem(System, Bulk, KeepsResults):
    title = "Stem"
    distributions = ()  # it runs from the sources
    share = 1.0
    worker = (
        "stem_cli.node_command",
        *("--app", f"{__name__}:app"),
        *("--broker", broker_url()),
        *("--concurrency", str(EXECUTORS)),
        *("--admin", "127.0.0.1:0"),
        *("--log-level", "warning"),
    )

    def enqueue(self, task: TaskName, numbers: range) -> None:
        enqueue = {"noop": noop, "hold": hold}[task].enqueue
        for number in numbers:
            enqueue(number)

    def enqueue_many(self, numbers: range) -> None:
        app.enqueue_many(noop.call(number) for number in numbers)

    def ask(self, number: int) -> object:
        return noop.enqueue(number).get(timeout=PATIENCE)
