"""The nemesis: injects the planned faults in a thread of its own, heals each in its time, and writes down both."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stem_chaos.history import Phase, Recorder, Verb
from stem_chaos.nemesis.fault import CannotInject, Fault, Injection
from stem_chaos.nemesis.schedule import Planned

if TYPE_CHECKING:
    from stem_chaos.cluster import Cluster

__all__ = ["Nemesis"]

_AGAIN = 0.25
_TRIES = 12
_HEALED_WITHIN = 60.0


class Nemesis:
    """Carries out a plan. `start` once; `stop` heals what lasts and ends it.

    `invoke` is written before a fault begins, `ok` with all that is known of it when it is over, `fail` when it could not be
    done. `active` says what is on right now, `done` counts by name what took effect. `impossible` has the reason of each fault
    that cannot be injected here at all; `broken` is the error that ended the nemesis itself.
    """

    def __init__(self, cluster: Cluster, plan: Sequence[Planned], recorder: Recorder, faults: Mapping[str, Fault]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._recorder = recorder
        self._faults = faults
        self._steps: list[_Step] = []
        self._order = itertools.count()
        self._is_stopped = threading.Event()
        self._is_through = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stem-chaos-nemesis", daemon=True)
        self.active: dict[int, str] = {}
        self.done: Counter[str] = Counter()
        self.impossible: dict[str, str] = {}
        self.broken: Exception | None = None
        self.last_end: float | None = None
        """Monotonic time at which the last fault was over."""

    def start(self) -> None:
        """Begin; the plan's times count from now."""
        began = time.monotonic()
        for planned in self._plan:
            heapq.heappush(self._steps, _Step(began + planned.at, next(self._order), planned))
        self._thread.start()

    def is_through(self, timeout: float = 0.0) -> bool:
        """Wait until every planned fault is over, or so long."""
        return self._is_through.wait(timeout)

    def stop(self) -> None:
        """Begin no more, heal at once what is on, and wait for that."""
        self._is_stopped.set()
        if self._thread.ident is not None:  # else it never began
            self._thread.join(_HEALED_WITHIN)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while self._steps and not self._is_stopped.wait(max(0.0, self._steps[0].at - time.monotonic())):
                step = heapq.heappop(self._steps)
                if step.injection is None:
                    self._begin(step)
                else:
                    self._heal(step, step.injection)
        except Exception as error:  # a fault that fails is the run's failure: whoever runs it looks at `broken`
            self.broken = error
        self._heal_all()
        self._is_through.set()

    def _heal_all(self) -> None:
        for step in sorted(self._steps):
            try:
                if step.injection is not None:
                    self._heal(step, step.injection)
            except Exception as error:  # the others are healed all the same
                self.broken = self.broken or error

    def _begin(self, step: _Step) -> None:
        planned = step.planned
        if planned.fault in self.impossible:
            return
        fault = self._faults[planned.fault]
        healed_at = max((each.at for each in self._steps if self._is_on(each, fault.scope)), default=None)
        if planned.lasts and healed_at is not None:  # one of them was late, and the other one waits
            heapq.heappush(self._steps, _Step(healed_at, next(self._order), planned, tries=step.tries))
            return
        call = self._recorder.invoke(Verb.FAULT, fault=fault.name)
        try:
            injection = fault.begin(self._cluster, random.Random(planned.seed))
            reason = "there was nothing that it could be done to"
        except CannotInject as error:
            injection, reason = None, str(error)
            self.impossible[fault.name] = reason
        if injection is None:
            self._recorder.write(Verb.FAULT, Phase.FAIL, call, fault=fault.name, error=reason)
            if step.tries < _TRIES and fault.name not in self.impossible:
                again = _Step(time.monotonic() + _AGAIN, next(self._order), planned, tries=step.tries + 1)
                heapq.heappush(self._steps, again)
            return
        self.done[fault.name] += 1
        self.active[call] = f"{fault.name}: {injection.target}"
        healing = _Step(time.monotonic() + planned.lasts, next(self._order), planned, call, injection)
        if planned.lasts:
            heapq.heappush(self._steps, healing)
        else:
            self._heal(healing, injection)

    def _is_on(self, step: _Step, scope: str) -> bool:
        return step.injection is not None and self._faults[step.planned.fault].scope == scope

    def _heal(self, step: _Step, injection: Injection) -> None:
        fault = self._faults[step.planned.fault]
        fault.heal(self._cluster, injection)
        detail = {**injection.detail, "fault": fault.name, "target": injection.target}
        self._recorder.write(Verb.FAULT, Phase.OK, step.call, detail=detail)
        self.active.pop(step.call, None)
        self.last_end = time.monotonic()


@dataclass(frozen=True, slots=True, order=True)
class _Step:
    """Something to do `at` a monotonic time: begin a planned fault, or heal it when it has an injection."""

    at: float
    order: int
    planned: Planned = field(compare=False)
    call: int = field(default=0, compare=False)
    injection: Injection | None = field(default=None, compare=False)
    tries: int = field(default=0, compare=False)
