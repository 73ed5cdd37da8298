"""Unique tasks: what is asked for when one is enqueued, and the claim that keeps others out. Pure.

A claim is a key of a queue that a task holds. It is taken in the step that stores the task, and given back in the step that ends
it, so there is no moment at which the one is there without the other.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from stem_actors.errors import TaskDefinitionError, UsageError

__all__ = [
    "DUPLICATES_KEPT",
    "KEY",
    "Claim",
    "Duplicate",
    "HeldClaim",
    "UniquePolicy",
    "UniqueScope",
    "Uniqueness",
    "chosen_key",
    "contend",
    "is_kept_out",
]

UniquePolicy: TypeAlias = Literal["reject", "replace", "raise"]
"""What becomes of an enqueue while another task holds the key: it comes to the other one's id, takes its place, or raises."""

UniqueScope: TypeAlias = Literal["until_done", "until_started", "window"]
"""How long a task holds its key: until it has ended, until it first starts, or for a fixed time from its enqueue on."""

DUPLICATES_KEPT = 20
LONGEST_KEY = 512
KEY = "stem.unique.key"
"""Where a task's meta says which key it held."""


class Uniqueness(NamedTuple):
    """How a task is unique. `window`: seconds, with that scope only; `headers`: those that tell calls apart."""

    policy: UniquePolicy = "reject"
    scope: UniqueScope = "until_done"
    window: float | None = None
    headers: Sequence[str] = ()

    @classmethod
    def asked(
        cls,
        unique: bool,
        unique_for: float | None,
        unique_headers: Sequence[str],
        unique_policy: UniquePolicy,
        unique_scope: UniqueScope | None,
    ) -> Uniqueness | None:
        """What these options of a task come to. A time alone means a window.

        Raises:
            TaskDefinitionError: they contradict each other.
        """
        if not unique:
            if unique_for is not None or unique_headers or unique_scope is not None or unique_policy != "reject":
                raise TaskDefinitionError("options of unique tasks are given to one that is not: add unique=True")
            return None
        scope = unique_scope or ("until_done" if unique_for is None else "window")
        if unique_policy not in get_args(UniquePolicy):
            raise TaskDefinitionError(f"{unique_policy!r} is no unique_policy: reject, replace or raise")
        if scope not in get_args(UniqueScope):
            raise TaskDefinitionError(f"{scope!r} is no unique_scope: until_done, until_started or window")
        if isinstance(unique_headers, str):
            raise TaskDefinitionError("unique_headers is a list of names")
        if (scope == "window") != (unique_for is not None):
            raise TaskDefinitionError("unique_for is how long a window lasts: unique_scope='window' needs it, no other takes it")
        if unique_for is not None and unique_for <= 0:
            raise TaskDefinitionError("unique_for is a number of seconds above 0")
        return cls(unique_policy, scope, unique_for, tuple(unique_headers))


class Claim(NamedTuple):
    """What a message claims as it is stored.

    `replaces`  it takes the key from whoever holds it; else it is not stored while another does
    `lasts`     seconds for which it holds the key, whatever becomes of it; None: until its end
    """

    key: str
    replaces: bool = False
    lasts: float | None = None


class Duplicate(NamedTuple):
    """An enqueue that came to nothing, since its key was held: the id it would have had, and when (seconds since the epoch)."""

    id: str
    at: float


class HeldClaim(NamedTuple):
    """A key that is held. `ends_at` None: with its task; `refusals`: how many it kept out, of which the last are `duplicates`."""

    queue: str
    key: str
    owner: str
    claimed_at: float
    ends_at: float | None
    refusals: int = 0
    duplicates: Sequence[Duplicate] = ()

    def refused(self, task_id: str, at: float) -> HeldClaim:
        """It kept one more out."""
        kept = (*self.duplicates, Duplicate(task_id, at))[-DUPLICATES_KEPT:]
        return self._replace(refusals=self.refusals + 1, duplicates=kept)

    def stands(self, now: float) -> bool:
        return self.ends_at is None or self.ends_at > now


def chosen_key(meta: Mapping[str, Any]) -> str | None:
    """The key that a call's meta names, if it does.

    Raises:
        UsageError: it is no text, or too long.
    """
    key = meta.get("stem.unique.override") or meta.get("uniqueKey")
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or "\n" in key:
        raise UsageError(f"a unique key is a line of 1 to {LONGEST_KEY} characters, not {key!r}")
    return key


def contend(
    messages: Sequence[tuple[str, str, Claim | None]], held: MutableMapping[tuple[str, str], HeldClaim], now: float
) -> dict[str, str]:
    """Which of these messages (id, queue, claim) another task keeps out, or gives way to: its id by theirs.

    `held` has the claims that stand on any of their keys, by queue and key, and is as it should be afterwards.
    """
    others: dict[str, str] = {}
    for task_id, queue, claim in messages:
        if claim is None:
            continue
        place = queue, claim.key
        before = held.get(place)
        if before is not None and before.stands(now):
            others[task_id] = before.owner
            if is_kept_out(task_id, claim, others):
                held[place] = before.refused(task_id, now)
                continue
        held[place] = HeldClaim(queue, claim.key, task_id, now, None if claim.lasts is None else now + claim.lasts)
    return others


def is_kept_out(task_id: str, claim: Claim | None, others: Mapping[str, str]) -> bool:
    """Whether a message is not stored, since another holds its key; one does not take its own place."""
    other = others.get(task_id)
    return other is not None and claim is not None and (not claim.replaces or other == task_id)
