"""Every built-in workload by name, and with `app` all their tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stem_chaos.workload.bank import Bank
from stem_chaos.workload.coroutines import Coroutines
from stem_chaos.workload.delayed import Delayed
from stem_chaos.workload.limited import Limited
from stem_chaos.workload.long import Long
from stem_chaos.workload.poison import Poison
from stem_chaos.workload.priorities import Priorities
from stem_chaos.workload.retries import Retries
from stem_chaos.workload.short import Short
from stem_chaos.workload.tasks import app
from stem_chaos.workload.workload import Workload

__all__ = ["WORKLOADS", "app"]

WORKLOADS: Mapping[str, Callable[..., Workload]] = {
    kind.name: kind for kind in (Short, Long, Delayed, Retries, Priorities, Poison, Coroutines, Limited, Bank)
}
"""Each is made with the parameters that a suite gives it."""
