from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from stem_actors.errors import TaskDefinitionError, UnknownTask
from stem_actors.model.task import TaskOptions, TaskRegistry


def mail() -> None: ...


async def amail() -> None: ...


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"soft_time_limit": 0}, "above 0"),
        ({"hard_time_limit": -1.0}, "above 0"),
        ({"soft_time_limit": 2.0, "hard_time_limit": 2.0}, "must end before"),
        ({"soft_time_limit": 3.0, "hard_time_limit": 2.0}, "must end before"),
        ({"max_retries": -1}, "from 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(TaskDefinitionError, match=why):
        TaskOptions(**options)


def test_limits_in_order_are_taken() -> None:
    assert TaskOptions(soft_time_limit=1.0, hard_time_limit=1.5, max_retries=0).hard_time_limit == 1.5


def test_a_registry_finds_what_was_added() -> None:
    registry = TaskRegistry()
    registry.add("mail", mail, TaskOptions())
    registry.add("amail", amail, TaskOptions())
    assert [task.name for task in registry] == ["mail", "amail"]
    assert [task.is_async for task in registry] == [False, True]
    assert len(registry) == 2
    assert registry.find("other") is None
    with pytest.raises(UnknownTask, match="known: amail, mail"):
        registry.get("other")


def test_a_name_is_taken_once() -> None:
    registry = TaskRegistry()
    registry.add("mail", mail, TaskOptions())
    with pytest.raises(TaskDefinitionError, match="already registered"):
        registry.add("mail", amail, TaskOptions())


def test_a_function_imported_twice_under_two_names_is_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f(): ...\n")
    registry = TaskRegistry()
    for name in ("__main__x", "script"):
        registry.add("f", runpy.run_path(str(script), run_name=name)["f"], TaskOptions())
    assert len(registry) == 1
