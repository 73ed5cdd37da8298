"""What `stem_actors` offers, and that offering it costs nothing until it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

import stem_actors

PUBLIC = [
    "AsyncTask",
    "BrokerUnavailable",
    "BulkEnqueueError",
    "Call",
    "ChildSpec",
    "ConfigError",
    "DuplicateTask",
    "DuplicateTaskId",
    "Handle",
    "Middleware",
    "MiddlewareError",
    "PayloadError",
    "ResultTimeout",
    "ResultsDisabled",
    "RetryPolicy",
    "Settings",
    "SoftTimeLimitExceeded",
    "Stem",
    "StemActor",
    "StemError",
    "StorageFull",
    "Supervisor",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskDefinitionError",
    "TaskError",
    "TaskFailed",
    "TaskInterrupt",
    "TaskReleased",
    "TaskRevoked",
    "TaskState",
    "UnknownTask",
    "UsageError",
    "current_task",
]


def test_the_public_names_are_these() -> None:
    assert sorted(stem_actors.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(stem_actors))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(stem_actors, name).__name__ == name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(inspect.getsource(stem_actors))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(seen) == sorted(PUBLIC)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Stum'"):
        stem_actors.Stum  # type: ignore[attr-defined]  # noqa: B018  # the access is the test


def loaded_by(code: str) -> set[str]:
    """The modules that are there after `code` ran in a new interpreter."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    environ = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
    return set(done.stdout.split())


HEAVY = {"pykka", "sqlite3", "multiprocessing", "rich", "prometheus_client", "psutil", "asyncio", "concurrent.futures"}


def test_importing_the_package_loads_nothing() -> None:
    assert {name for name in loaded_by("import stem_actors") if name.startswith(("stem_actors.", "msgpack"))} == set()


def test_a_module_that_defines_tasks_loads_nothing_heavy() -> None:
    code = "from stem_actors import Stem, current_task\napp = Stem()\n@app.task\ndef f(a: int) -> int: return a"
    loaded = loaded_by(code)
    assert loaded & HEAVY == set()
    assert {name for name in loaded if name.startswith(("stem_actors.adapters", "stem_actors.supervision"))} == set()
