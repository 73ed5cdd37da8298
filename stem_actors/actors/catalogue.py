"""What a worker knows of the tasks: the catalogue that its executors sent, since it imports no user code itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from stem_actors.model.concurrency import Place, pace
from stem_actors.model.delivery import Delivery
from stem_actors.model.envelope import Envelope
from stem_actors.model.rate import Limit, Rate, parse_rate
from stem_actors.model.retry import DEFAULT_BACKOFF, RetryPolicy

__all__ = ["Catalogue", "LimitRule", "PlaceRule", "TaskFacts", "limits_of", "places_of"]

_EVERYBODY = "global"


class LimitRule(NamedTuple):
    """One rate limit of a task. Calls are told apart by a header, unless `key` is theirs all.

    `scope`  task or group
    """

    scope: str
    name: str
    rate: Rate
    fails_open: bool = True
    header: str = "tenant"
    key: str | None = None

    def limit(self, envelope: Envelope) -> Limit:
        """What it comes to for one call."""
        return Limit(f"{self.name}:{self.key or envelope.headers.get(self.header) or _EVERYBODY}", self.rate)

    def asked(self, delivery: Delivery, expected: float | None) -> Limit:
        """What is asked of the limiter for one delivery; `expected`: how long its run is expected to take, as far as is known."""
        return self.limit(delivery.envelope)


class PlaceRule(NamedTuple):
    """The concurrency limit of a task: so many of `name` run at the same time, told apart by a header if there is one.

    Nothing runs beyond it because the limiter cannot be asked.
    """

    name: str
    number: int
    header: str | None = None
    scope: str = "concurrency"
    fails_open: bool = False

    def asked(self, delivery: Delivery, expected: float | None) -> Place:
        """What is asked of the limiter for one delivery."""
        envelope, state, lease, _ = delivery
        key = self.name
        if self.header is not None:
            key = f"{key}:{envelope.headers.get(self.header) or _EVERYBODY}"
        soon = pace(expected, self.number, state.delivery_count - 1)
        holder = f"{lease.holder} {lease.token}"
        return Place(key, self.number, holder, envelope.id, envelope.enqueued_at, lease.visibility, soon)


Rule: TypeAlias = LimitRule | PlaceRule


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task's options, as far as a worker needs them. Durations in seconds.

    `tells_first`: the broker is told before it starts that it is done (not `acks_late`), or that it holds no key any more.
    """

    is_async: bool = False
    soft_time_limit: float | None = None
    hard_time_limit: float | None = None
    ignore_result: bool = False
    exclusive: bool = False
    acks_late: bool = True
    policy: RetryPolicy = DEFAULT_BACKOFF
    limits: Sequence[Rule] = ()
    tells_first: bool = False


class Catalogue:
    """Tasks by name. Empty until an executor has said hello."""

    def __init__(self, wire: Mapping[str, Any] | None = None) -> None:
        self._tasks = {entry["name"]: _facts(entry) for entry in (wire or {}).get("tasks", ())}
        self.find = self._tasks.get

    @property
    def has_async(self) -> bool:
        return any(facts.is_async for facts in self._tasks.values())

    @property
    def has_sync(self) -> bool:
        return not self._tasks or any(not facts.is_async for facts in self._tasks.values())


def limits_of(delivery: Delivery, facts: TaskFacts) -> tuple[float | None, float | None]:
    """Soft and hard limit of one delivery: what a retry changed, else what the call said, else the task's own."""
    if not delivery.envelope.meta and not delivery.state.overrides:
        return facts.soft_time_limit, facts.hard_time_limit
    return (
        _limit(delivery, "stem.softTimeLimitMs", facts.soft_time_limit),
        _limit(delivery, "stem.timeLimitMs", facts.hard_time_limit),
    )


def places_of(delivery: Delivery, rules: Sequence[Rule]) -> list[Place]:
    """The places that a delivery holds while it runs."""
    return [rule.asked(delivery, None) for rule in rules if isinstance(rule, PlaceRule)]


def _limit(delivery: Delivery, key: str, own: float | None) -> float | None:
    for source in (delivery.state.overrides, delivery.envelope.meta):
        milliseconds = source.get(key)
        if isinstance(milliseconds, int) and milliseconds > 0:
            return milliseconds / 1000
    return own


def _facts(entry: Mapping[str, Any]) -> TaskFacts:
    policy = entry["retry_policy"]
    return TaskFacts(
        entry["is_async"],
        entry["soft_time_limit"],
        entry["hard_time_limit"],
        entry["ignore_result"],
        entry["exclusive"],
        entry["acks_late"],
        DEFAULT_BACKOFF if policy is None else RetryPolicy(**policy),
        tuple(_limits(entry)),
        not entry["acks_late"] or entry.get("unique_scope") == "until_started",
    )


def _limits(entry: Mapping[str, Any]) -> Iterator[Rule]:
    if (number := entry.get("concurrency_limit")) is not None:
        shared = entry["concurrency_key"]
        yield PlaceRule(f"task:{entry['name']}" if shared is None else f"key:{shared}", number, entry["concurrency_key_header"])
    if (group := entry.get("group_rate_limit")) is not None:
        fails_open = entry["group_rate_limiter_failure_mode"] == "fail_open"
        yield LimitRule("group", "group", parse_rate(group), fails_open, entry["group_rate_key_header"], entry["group_rate_key"])
    if (own := entry.get("rate_limit")) is not None:
        yield LimitRule("task", entry["name"], parse_rate(own), entry["rate_limit_failure_mode"] == "fail_open")
