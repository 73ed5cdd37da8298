"""How many executors a worker should have for the work that waits: a pure decision, taken at each tick."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["Autoscale", "Scaled", "decide"]


@dataclass(frozen=True, slots=True)
class Autoscale:
    """Between which numbers, and how fast. Durations in seconds.

    `backlog_per_executor`  so many messages that wait for each executor are worth further ones
    `idle_period`           so long there has to be nothing at all before one goes
    `up_cooldown`           between two steps upwards, at least; `down_cooldown`: downwards
    """

    least: int = 1
    most: int = 1
    up_step: int = 1
    down_step: int = 1
    backlog_per_executor: float = 1.0
    idle_period: float = 30.0
    tick: float = 2.0
    up_cooldown: float = 5.0
    down_cooldown: float = 10.0

    def within(self, concurrency: int) -> Autoscale:
        """These rules for a worker that may have so many executors."""
        most = min(self.most, concurrency)
        return replace(self, least=min(self.least, most), most=most)


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was decided, and what the next decision has to know. Times are `Clock.monotonic()`."""

    executors: int
    idle_since: float | None = None
    raised_at: float = -math.inf
    lowered_at: float = -math.inf


def decide(rules: Autoscale, last: Scaled, backlog: int, inflight: int, now: float) -> Scaled:
    """One step up, one down, or as it is. `backlog`: messages that wait at the broker; `inflight`: deliveries held here."""
    current = last.executors
    if backlog > 0:
        is_worth_it = backlog / current >= rules.backlog_per_executor
        if current < rules.most and is_worth_it and now - last.raised_at >= rules.up_cooldown:
            return replace(last, executors=min(rules.most, current + rules.up_step), idle_since=None, raised_at=now)
    if backlog > 0 or inflight > 0:
        return replace(last, idle_since=None)
    idle_since = now if last.idle_since is None else last.idle_since
    is_idle = now - idle_since >= rules.idle_period and now - last.lowered_at >= rules.down_cooldown
    if current > rules.least and is_idle:
        return replace(last, executors=max(rules.least, current - rules.down_step), idle_since=idle_since, lowered_at=now)
    return replace(last, idle_since=idle_since)
