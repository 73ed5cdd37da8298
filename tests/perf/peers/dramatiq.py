"""Dramatiq with its default of eight threads in each process; results."""

from __future__ import annotations

import dramatiq  # type: ignore[import-not-found]  # is in the environment of the comparison only
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]
from dramatiq.results import Results  # type: ignore[import-not-found]
from dramatiq.results.backends.redis import RedisBackend  # type: ignore[import-not-found]

from tests.perf import tasks
from tests.perf.systems import EXECUTORS, LAPSE, PATIENCE, RESULT_TTL, KeepsResults, System, TaskName, broker_url

__all__ = ["DramatiqSystem", "broker"]

broker = RedisBroker(
    url=broker_url(),
    heartbeat_timeout=int(1000 * LAPSE),
    # Out of a million commands so many look for dead workers. The default, 1,000, leaves an idle system's task for minutes.
    maintenance_chance=100_000,
)
broker.add_middleware(Results(backend=RedisBackend(url=broker_url()), store_results=True, result_ttl=1000 * RESULT_TTL))
dramatiq.set_broker(broker)
noop = dramatiq.actor(tasks.noop)
hold = dramatiq.actor(tasks.hold)


class DramatiqSystem(System, KeepsResults):
    title = "Dramatiq"
    distributions = ("dramatiq",)
    share = 0.2
    worker = ("dramatiq", f"{__name__}:broker", "--processes", str(EXECUTORS))

    def enqueue(self, task: TaskName, numbers: range) -> None:
        send = {"noop": noop, "hold": hold}[task].send
        for number in numbers:
            send(number)

    def ask(self, number: int) -> object:
        return noop.send(number).get_result(block=True, timeout=int(1000 * PATIENCE))
