"""The autoscaler: lets the number of executors follow the work that waits. Only a worker started with `--autoscale` has one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from stem_actors.actors import messages as m
from stem_actors.actors.vitals import Vitals
from stem_actors.errors import StemError
from stem_actors.model.autoscale import Autoscale, Scaled, decide
from stem_actors.ports import Broker
from stem_actors.supervision.base import ActorContext, StemActor

__all__ = ["Autoscaler"]

_logger = logging.getLogger("stem.autoscaler")


@dataclass(frozen=True, slots=True)
class _Tick:
    """Time to decide."""


Message: TypeAlias = m.Load | _Tick


class Autoscaler(StemActor):
    """Asks for more executors while messages wait that those there are cannot take, and for fewer after a time without work.

    Owns:     `Vitals.concurrency`; since when there is no work, and when it last changed something.
    Receives: Load (executor pool).      Tells: executor pool (AskLoad, ConcurrencyChanged).
    Restart:  the number of executors stays as it is; the time without work counts anew.
    """

    def __init__(
        self, context: ActorContext, rules: Autoscale, broker: Broker, queues: Sequence[str], worker: str, vitals: Vitals
    ) -> None:
        super().__init__(context)
        self._rules = rules
        self._broker = broker
        self._queues = queues
        self._worker = worker
        self._vitals = vitals
        self._scaled = Scaled(vitals.concurrency)
        self._backlog = 0

    def on_start(self) -> None:
        self.after(self._rules.tick, _Tick())

    def on_receive(self, message: Message) -> None:
        match message:
            case _Tick():
                self.tell(m.EXECUTOR_POOL, m.AskLoad())  # without an answer nothing changes: it restarts, or the worker leaves
                self.after(self._rules.tick, _Tick())
            case m.Load(inflight):
                self._scale(inflight)
            case _:
                assert_never(message)

    def _scale(self, inflight: int) -> None:
        before = self._scaled.executors
        self._backlog = self._look(inflight)
        self._scaled = decide(self._rules, self._scaled, self._backlog, inflight, self.clock.monotonic())
        after = self._scaled.executors
        if after == before:
            return
        reason = "scale-up" if after > before else "scale-down"
        facts = {"from": before, "to": after, "reason": reason, "backlog": self._backlog, "inflight": inflight}
        _logger.info(
            "%s goes from %d to %d executors: %s, backlog %d, in flight %d",
            self._worker,
            *facts.values(),
            extra={"worker": self._worker, **facts},
        )
        self._vitals.concurrency = after
        self.tell(m.EXECUTOR_POOL, m.ConcurrencyChanged())

    def _look(self, inflight: int) -> int:
        """How many messages wait for this worker; what was last known when the broker does not say.

        Asked only when the answer could change something: one that holds less than it has executors would have taken what waits,
        and one that has all it may have gets no more. So an idle worker asks nothing.
        """
        executors = self._scaled.executors
        if inflight < executors or executors >= self._rules.most:
            return 0
        queues = [queue for queue in self._queues if queue not in self._vitals.paused]
        try:
            return sum(depth.pending for depth in self._broker.depths(queues)) if queues else 0
        except StemError as error:
            _logger.info("%s cannot read the queues' depths: %s", self._worker, error)
            return self._backlog
