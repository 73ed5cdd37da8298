"""The Redis broker answers as the memory broker does, whatever is done to it.

Three things may differ, and are levelled out here: what comes back joins behind what came back before, where memory puts it in
front; of several released in one batch the order follows the entries' ids; and times are in whole milliseconds.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis.stateful import initialize, invariant, precondition, rule
from hypothesis.strategies import integers, lists, sampled_from

from stem_actors.adapters.memory import broker as memory_broker
from stem_actors.adapters.memory.space import Waiting
from stem_actors.model.outcome import Ack, Release, Verdict
from stem_actors.ports import Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import MemoryFabric, RedisFabric, results_of
from tests.property import test_broker_twin as base


class _Orderly(memory_broker.MemoryBroker):
    """What comes back joins behind what came back before."""

    def _put_first(self, messages: Sequence[Waiting]) -> None:
        back: list[Waiting] = self.__dict__.setdefault("_back", [])
        for message in messages:
            level = self._level(message)
            place = next((at for at, each in enumerate(level) if not any(each is other for other in back)), len(level))
            level.insert(place, message)
            back.append(message)


class RedisTwin(base.BrokerTwin):
    """As the machine it is made from, with another broker beside the twin."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stem-twin-"))
        self.clock = ManualClock()
        self.fabric = RedisFabric(self.folder)
        self.twin, self.real = MemoryFabric(self.folder).open(clock=self.clock), self.fabric.open(clock=self.clock)
        self.twin.broker.__class__ = _Orderly  # one method more
        self.real.broker._register(base.QUEUES)  # type: ignore[attr-defined]  # a queue is swept from its first use on
        self.real.broker._sweeper.queue_kept_ms = 10**12  # type: ignore[attr-defined]  # and what is forgotten is not
        self.intakes = {}
        self.pairs = []
        self.published = []
        self.serial = 0

    def teardown(self) -> None:
        if hasattr(self, "fabric"):
            self.fabric.close()
        super().teardown()

    def both(self, question: Callable[[Stores], Any]) -> Any:
        expected, answer = question(self.twin), question(self.real)
        assert is_alike(answer, expected), f"\n{answer}\n{expected}"
        return answer

    @rule(holder=sampled_from(base.HOLDERS), queues=sampled_from(base.SUBSCRIPTIONS), limit=sampled_from([0, 1, 3, 8, 50]))
    def receive(self, holder: str, queues: Sequence[str], limit: int) -> None:
        key = (holder, queues)
        if key not in self.intakes:
            self.intakes[key] = (self.twin.broker.open_intake(queues, holder), self.real.broker.open_intake(queues, holder))
        if limit > 0:  # memory promotes what is due in all queues, whichever are fetched from
            intake: Any = self.intakes[key][1]
            intake._server.run_all([intake._look(queue) for queue in base.QUEUES])
        twins, reals = (intake.receive(limit, 0) for intake in self.intakes[key])
        seen = list(map(base.visible, reals)), list(map(base.visible, twins))
        assert is_alike(*seen), f"\n{seen[0]}\n{seen[1]}"
        self.pairs += map(base.Pair, twins, reals)

    @precondition(lambda self: self.pairs)
    @rule(some=lists(base.plans, min_size=1, max_size=6))
    def settle(self, some: list[base.Plan]) -> None:
        releases = count()
        super().settle(
            [plan._replace(verdict=Ack()) if isinstance(plan.verdict, Release) and next(releases) else plan for plan in some]
        )

    @precondition(lambda self: self.pairs)
    @rule(count=integers(2, 8), verdict=base.verdicts)
    def settle_alike(self, count: int, verdict: Verdict) -> None:
        super().settle_alike(1 if isinstance(verdict, Release) else count, verdict)

    @rule()
    def purge_expired_records(self) -> None:
        """How many is the server's business: it forgets by itself too."""
        for stores in (self.twin, self.real):
            results_of(stores).purge_expired()

    @invariant()
    def both_look_alike(self) -> None:
        if hasattr(self, "fabric"):
            self.both(sight)


def sight(stores: Stores) -> Any:
    """As `base.sight`, in an order that both know."""
    depths, held, dead, records, claims = base.sight(stores)
    return depths, sorted(held, key=lambda each: each[1][0]), dead, records, claims


def is_alike(one: Any, other: Any) -> bool:
    """Equal, but for what is lost where times are kept in whole milliseconds."""
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) < 0.006
    if dataclasses.is_dataclass(one) and dataclasses.is_dataclass(other):
        names = [each.name for each in dataclasses.fields(one)]
        return type(one) is type(other) and all(is_alike(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(is_alike, one, other))
    return bool(one == other)


TestRedisTwin = RedisTwin.TestCase
TestRedisTwin.settings = settings(max_examples=40, stateful_step_count=50)
