"""How an executor finds the user's code: what to import, handed down as text, and the catalogue of what was found.

Node and worker import no user code; they know tasks by the catalogue alone.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from stem_actors.middleware.chain import Middleware
from stem_actors.model.task import TaskDefinition, TaskRegistry

__all__ = ["Application", "ApplicationSource", "CannotLoad", "describe", "load"]

_USAGE = 64


@dataclass(frozen=True, slots=True)
class ApplicationSource:
    """Where the application is. `target` is `MODULE[:ATTRIBUTE]`; `script` the file of a program that defines tasks itself.

    `modules` are imported beside it, since they register tasks. `directory` comes first on the import path.
    """

    target: str
    script: str | None = None
    modules: Sequence[str] = ()
    directory: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """A loaded application. `catalogue` is its tasks as data, and the broker it was built for, if it names one."""

    registry: TaskRegistry
    catalogue: Mapping[str, Any]
    instance: Any

    @property
    def payload_types(self) -> Any:
        """The types that it adds to what travels; for the codec, which alone knows what they are."""
        return getattr(self.instance, "payload_types", None)

    @property
    def middlewares(self) -> Sequence[Middleware]:
        """In the order in which they go around tasks, the first outermost."""
        return tuple(getattr(self.instance, "middlewares", ()))


class CannotLoad(Exception):
    """The application cannot be used; `exit_code` is what the node ends with."""

    def __init__(self, message: str, exit_code: int = _USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def load(source: ApplicationSource) -> Application:
    """Import the application and describe its tasks.

    Raises:
        CannotLoad: with the user's traceback, or what is missing.
    """
    directory = source.directory or os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    module_name, _, attribute = source.target.partition(":")
    try:
        if source.script is not None:
            module = _run_script(source.script)
        else:
            module = importlib.import_module(module_name)
        for name in source.modules:
            importlib.import_module(name)
    except BaseException as error:  # user code: whatever an import raises, also SystemExit
        raise CannotLoad(f"the application {source.target!r} cannot be imported:\n{traceback.format_exc().rstrip()}") from error
    instance: Any = module
    for part in (attribute or "app").split("."):
        instance = getattr(instance, part, None)
    registry = getattr(instance, "registry", None)
    if not isinstance(registry, TaskRegistry):
        raise CannotLoad(
            f"{module_name!r} has no Stem application called {attribute or 'app'!r}. "
            f"Name the variable that holds it: --app {module_name}:NAME."
        )
    return describe(registry, instance)


def describe(registry: TaskRegistry, instance: Any) -> Application:
    """An application that is here already; `instance` is the `Stem` object."""
    return Application(registry, _catalogue(registry, instance), instance)


def _run_script(path: str) -> types.ModuleType:
    """Import a program under `__mp_main__`, as multiprocessing does, so that its `__main__` part does not run again."""
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    return module


def _catalogue(registry: TaskRegistry, instance: Any) -> dict[str, Any]:
    return {
        "broker": getattr(instance, "explicit_broker_url", None),
        "tasks": [_entry(definition) for definition in registry],
    }


def _entry(definition: TaskDefinition) -> dict[str, Any]:
    options = definition.options
    entry = {field.name: getattr(options, field.name) for field in fields(options) if field.name != "retry_policy"}
    policy = options.retry_policy
    entry["tags"] = list(options.tags)
    entry["retry_policy"] = (
        None
        if policy is None
        else {
            "backoff": policy.backoff,
            "backoff_max": policy.backoff_max,
            "jitter": policy.jitter,
            "default_delay": policy.default_delay,
            "max_retries": policy.max_retries,
        }
    )
    return {"name": definition.name, "is_async": definition.is_async, **entry}
