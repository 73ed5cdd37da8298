"""Every checker that any history can be given, in the order in which a report shows them."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from stem_chaos.checker.baseline import check_baseline
from stem_chaos.checker.counters import check_counters
from stem_chaos.checker.delays import check_delays
from stem_chaos.checker.duplicates import check_duplicates
from stem_chaos.checker.ends import check_ends
from stem_chaos.checker.fencing import check_fencing
from stem_chaos.checker.finding import Checker, Finding
from stem_chaos.checker.leaving import check_leaving
from stem_chaos.checker.no_loss import check_no_loss
from stem_chaos.checker.poison import check_poison
from stem_chaos.checker.priorities import check_priorities
from stem_chaos.checker.recovery import check_recovery
from stem_chaos.checker.terminal import check_terminal_once
from stem_chaos.checker.throughput import check_throughput
from stem_chaos.history import History

__all__ = ["CHECKERS", "check_all"]

CHECKERS: Sequence[Checker] = (
    check_no_loss,
    check_terminal_once,
    check_fencing,
    check_duplicates,
    check_recovery,
    check_poison,
    check_counters,
    check_ends,
    check_delays,
    check_priorities,
    check_baseline,
    check_throughput,
    check_leaving,
)


def check_all(history: History, more: Sequence[Checker] = ()) -> list[Finding]:
    """What each says, and those that `more` brings: the workloads' own ones."""
    is_collecting = gc.isenabled()
    gc.disable()  # millions of operations hold no cycles, and to look for some takes longer than all the rest
    try:
        return [check(history) for check in (*CHECKERS, *more)]
    finally:
        if is_collecting:
            gc.enable()
