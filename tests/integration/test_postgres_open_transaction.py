"""A transaction that somebody leaves open for minutes under load: nothing that dies meanwhile can be cleared away.

Beside the load that is measured runs another one like it, on a server where nobody leaves anything open. What else the machine
has to do slows both, so what is compared is how they relate.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from stem_actors.client import Call, CallOptions
from tests.fixtures.fleet import Fleet
from tests.fixtures.postgres_server import PostgresServer, own_server
from tests.fixtures.waiting import until

INTERVAL = 10.0
MINUTE = 6
"""Intervals."""
BATCH = 500
WAITING = 10_000
"""Tasks that were enqueued and not seen to end, at most: more than a second's worth, as the worker reports once a second."""
ON_DISK = "/var/tmp"  # while /tmp may be memory


class Load:
    """A server of its own, one worker, and a producer that keeps it supplied."""

    def __init__(self, server: PostgresServer, fleet: Fleet) -> None:
        self.server = server
        self._fleet = fleet
        self._worker = fleet.start_process()
        self._enqueued = 0

    @property
    def _done(self) -> int:
        return int(self._worker.reports.counters["stem_tasks_succeeded_total"])

    def rate(self) -> float:
        """Tasks per second that ended in the interval that begins now."""
        start, before = time.monotonic(), self._done
        while time.monotonic() < start + INTERVAL:
            until(lambda: self._enqueued - self._done < WAITING, 60.0, "the worker goes on")
            options = CallOptions("default", 0, 3, None, {}, {})
            numbers = range(self._enqueued, self._enqueued + BATCH)
            self._fleet.app.enqueue_many([Call("echo", (number,), {}, options) for number in numbers])
            self._enqueued += BATCH
        return (self._done - before) / (time.monotonic() - start)

    def has_run_all(self) -> None:
        until(lambda: self._done >= self._enqueued, 60.0, "every task has run")
        ((ended, of),) = self.server.execute("SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FROM stem.result")
        assert (ended, of) == (self._enqueued, self._enqueued)
        assert self._fleet.app.stores.broker.depths() == []


@contextmanager
def load(folder: Path) -> Iterator[Load]:
    folder.mkdir()
    place = Path(tempfile.mkdtemp(prefix="stem-postgres-", dir=ON_DISK))
    with own_server("shared_buffers=128MB", folder=place) as server:
        fleet = Fleet(folder, "postgres", broker_url=server.url, heartbeat_interval=10.0)
        try:
            yield Load(server, fleet)
        finally:
            fleet.close()


@contextmanager
def transaction_left_open(server: PostgresServer) -> Iterator[None]:
    """With a snapshot and a number of its own, as one has that read and wrote."""
    with psycopg.connect(server.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*), pg_current_xact_id() FROM pg_class")
        yield
        connection.rollback()


def relation(loads: Sequence[Load], intervals: int, what: str) -> float:
    """How many tasks the first of two loads did in the last minute for each of the second."""
    with ThreadPoolExecutor(len(loads)) as pool:
        rates = [tuple(pool.map(Load.rate, loads)) for _ in range(intervals)]
    for whose, figures in zip(("measured", "beside it"), zip(*rates, strict=True), strict=True):
        print(f"{what}, {whose}: {' '.join(f'{rate:.0f}' for rate in figures)} tasks/s")
    measured, other = (sum(figures) for figures in zip(*rates[-MINUTE:], strict=True))
    found: float = measured / other
    print(f"{what}: {found:.2f} (load {', '.join(f'{each:.1f}' for each in os.getloadavg())})", flush=True)
    return found


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_load_of_five_minutes_keeps_its_rate_beside_a_transaction_left_open_and_is_back_when_it_has_ended(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        loads = [stack.enter_context(load(tmp_path / name)) for name in ("measured", "other")]
        relation(loads, 1, "warm-up")
        before = relation(loads, MINUTE, "before")
        with transaction_left_open(loads[0].server):
            beside = relation(loads, 5 * MINUTE, "with it")
        after = relation(loads, MINUTE, "after it")
        for each in loads:
            each.has_run_all()
    assert beside >= 0.6 * before
    assert after >= 0.8 * before
