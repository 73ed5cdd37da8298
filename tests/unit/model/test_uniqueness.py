"""What the options of unique tasks come to, and who gets a key."""

from __future__ import annotations

from typing import Any

import pytest

from stem_actors.errors import TaskDefinitionError, UsageError
from stem_actors.model.task import TaskOptions
from stem_actors.model.uniqueness import Claim, HeldClaim, Uniqueness, chosen_key, contend, is_kept_out


def uniqueness(**options: Any) -> Uniqueness | None:
    return TaskOptions(**options).uniqueness


def test_a_task_is_not_unique_unless_it_says_so() -> None:
    assert uniqueness() is None


def test_options_come_to_a_policy_and_a_scope() -> None:
    assert uniqueness(unique=True) == Uniqueness("reject", "until_done")
    assert uniqueness(unique=True, unique_for=60) == Uniqueness("reject", "window", 60)
    assert uniqueness(unique=True, unique_scope="until_started", unique_policy="raise", unique_headers=["a"]) == Uniqueness(
        "raise", "until_started", None, ("a",)
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"unique_for": 60}, "add unique=True"),
        ({"unique_policy": "raise"}, "add unique=True"),
        ({"unique": True, "unique_policy": "drop"}, "no unique_policy"),
        ({"unique": True, "unique_scope": "ever"}, "no unique_scope"),
        ({"unique": True, "unique_scope": "window"}, "how long a window lasts"),
        ({"unique": True, "unique_scope": "until_done", "unique_for": 60}, "how long a window lasts"),
        ({"unique": True, "unique_for": 0}, "above 0"),
        ({"unique": True, "unique_headers": "tenant"}, "a list of names"),
        ({"concurrency_limit": 0}, "from 1"),
        ({"concurrency_limit": True}, "from 1"),
        ({"concurrency_key": "k"}, "without a concurrency_limit"),
        ({"concurrency_key_header": "k"}, "without a concurrency_limit"),
    ],
)
def test_options_that_contradict_each_other_are_refused_when_the_task_is_defined(options: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskDefinitionError, match=says):
        TaskOptions(**options)


def test_a_key_of_ones_own_is_a_line_of_text() -> None:
    assert chosen_key({}) is None
    assert chosen_key({"uniqueKey": "a"}) == "a"
    assert chosen_key({"uniqueKey": "a", "stem.unique.override": "b"}) == "b"
    for wrong in (7, "a\nb", "x" * 513, ["a"]):
        with pytest.raises(UsageError, match="a unique key is"):
            chosen_key({"uniqueKey": wrong})


def test_the_first_gets_the_key_and_others_come_to_it() -> None:
    held: dict[tuple[str, str], HeldClaim] = {}
    others = contend([("a", "q", Claim("k")), ("b", "q", Claim("k")), ("c", "r", Claim("k")), ("d", "q", None)], held, 5.0)
    assert others == {"b": "a"}
    assert {place: claim.owner for place, claim in held.items()} == {("q", "k"): "a", ("r", "k"): "c"}
    assert [(duplicate.id, duplicate.at) for duplicate in held["q", "k"].duplicates] == [("b", 5.0)]


def test_one_that_replaces_gets_it_from_the_one_before_and_a_window_that_is_over_is_nobodys() -> None:
    held = {("q", "k"): HeldClaim("q", "k", "old", 0.0, None), ("q", "w"): HeldClaim("q", "w", "old", 0.0, 4.0)}
    others = contend([("a", "q", Claim("k", replaces=True)), ("b", "q", Claim("w", lasts=10.0))], held, 5.0)
    assert others == {"a": "old"}
    assert held["q", "k"].owner == "a"
    assert (held["q", "w"].owner, held["q", "w"].ends_at) == ("b", 15.0)


def test_nobody_takes_its_own_place() -> None:
    claim = Claim("k", replaces=True)
    assert is_kept_out("a", claim, {"a": "a"})
    assert not is_kept_out("a", claim, {"a": "b"})
    assert not is_kept_out("a", claim, {})
    assert not is_kept_out("a", None, {})
