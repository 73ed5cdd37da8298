from __future__ import annotations

from typing import Any

import pytest

from stem_actors.actors.catalogue import Catalogue, TaskFacts, limits_of
from stem_actors.model.delivery import State
from stem_actors.model.retry import DEFAULT_BACKOFF, RetryPolicy
from tests.unit.model.values import delivery_of


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "is_async": False,
        "soft_time_limit": None,
        "hard_time_limit": None,
        "ignore_result": False,
        "exclusive": False,
        "acks_late": True,
        "retry_policy": None,
        **changes,
    }


def test_an_empty_catalogue_knows_nothing_and_expects_sync_tasks() -> None:
    assert Catalogue().find("a") is None
    assert (Catalogue().has_sync, Catalogue().has_async) == (True, False)


def test_facts_come_from_what_the_executor_sent() -> None:
    policy = {"backoff": True, "backoff_max": 9.0, "jitter": False, "default_delay": 1.0, "max_retries": 2}
    catalogue = Catalogue({"tasks": [entry("a"), entry("b", is_async=True, hard_time_limit=5.0, retry_policy=policy)]})
    assert catalogue.find("a") == TaskFacts(policy=DEFAULT_BACKOFF)
    assert catalogue.find("b") == TaskFacts(
        is_async=True, hard_time_limit=5.0, policy=RetryPolicy(True, 9.0, False, 1.0, max_retries=2)
    )
    assert (catalogue.has_sync, catalogue.has_async) == (True, True)
    assert not Catalogue({"tasks": [entry("b", is_async=True)]}).has_sync


@pytest.mark.parametrize(
    ("overrides", "meta", "limits"),
    [
        ({}, {}, (1.0, 2.0)),
        ({}, {"stem.softTimeLimitMs": 500, "stem.timeLimitMs": 3000}, (0.5, 3.0)),
        ({"stem.timeLimitMs": 4000}, {"stem.timeLimitMs": 3000}, (1.0, 4.0)),
        ({"stem.timeLimitMs": "x"}, {"stem.timeLimitMs": 0}, (1.0, 2.0)),
    ],
)
def test_a_limit_is_that_of_the_retry_else_of_the_call_else_of_the_task(
    overrides: dict[str, Any], meta: dict[str, Any], limits: tuple[float, float]
) -> None:
    facts = TaskFacts(soft_time_limit=1.0, hard_time_limit=2.0)
    assert limits_of(delivery_of(State(overrides=overrides), meta=meta), facts) == limits
