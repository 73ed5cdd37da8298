"""From a parsed command line to settings, stores and the user's application."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

from stem_actors.app import Stem
from stem_actors.config import RESULTS_OFF, Resolved, Settings, masked_url, parse_duration, resolve, split_app
from stem_actors.errors import ConfigError, OperatorError, UsageError
from stem_cli.store_facts import file_of

__all__ = ["duration_of", "load_apps", "opened", "resolved", "settings_of"]


def resolved(args: argparse.Namespace) -> Resolved:
    """The settings for a command line. Options of a command that are no settings are left alone."""
    return resolve(vars(args), os.environ)


@contextmanager
def opened(settings: Settings, creates: bool = False) -> Iterator[Stem]:
    """An application without tasks on the stores of `settings`. Unless it `creates`, no file comes into being.

    Raises:
        ConfigError: the stores are in some other program's memory.
        OperatorError: a database file does not exist.
    """
    urls = [settings.broker_url, settings.result_backend_url or settings.broker_url]
    if any((url or "").lower().startswith("memory") for url in (*urls, settings.revoke_store_url)):
        raise ConfigError("a memory broker lives inside one program and cannot be reached from here; name another with --broker")
    for url in (url for url in urls if url != RESULTS_OFF):
        path = file_of(url)
        if path is not None and not creates and not path.exists():
            raise OperatorError(
                f"there is no database {path} ({masked_url(url)}): nothing was enqueued there yet, or it is elsewhere. "
                "Name it with --broker sqlite:////absolute/path, or STEM_BROKER_URL."
            )
    with Stem(settings=settings) as app:
        yield app


def load_apps(settings: Settings) -> list[Stem]:
    """Import the application named by `--app` or `STEM_APP` and the modules of `STEM_TASKS`; the named one comes first.

    Raises:
        ConfigError: an import failed (the cause is attached), or what was named is no application.
    """
    working_directory = os.getcwd()
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)
    apps: list[Stem] = []
    if settings.app is not None:
        module, attribute = split_app(settings.app)
        found: Any = _imported(module)
        for name in attribute.split("."):
            found = getattr(found, name, None)
        if not isinstance(found, Stem):
            raise ConfigError(f"{module}:{attribute} (--app, STEM_APP) is not a Stem application; it is {type(found).__name__}")
        apps.append(found)
    for module in settings.tasks:
        apps += [value for value in vars(_imported(module)).values() if isinstance(value, Stem) and value not in apps]
    return apps


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # the user's code, which may raise anything
        raise ConfigError(
            f"module {module!r} cannot be imported: {type(error).__name__}: {error} "
            f"(looked for in {os.getcwd()} and on Python's path)"
        ) from error


def settings_of(app: Stem, given: Resolved) -> Settings:
    """The settings for talking to `app`'s stores: a flag wins, then what the application's own code says."""
    names = ("broker_url", "result_backend_url", "namespace", "default_queue", "default_max_retries")
    own: dict[str, Any] = {name: getattr(app.settings, name) for name in names if not given.sources[name].startswith("-")}
    return replace(given.settings, **own)


def duration_of(text: str | None, option: str) -> float | None:
    """Seconds of a duration given to a command's own option."""
    if text is None or not text.strip():
        return None
    try:
        return parse_duration(text.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}, which is not a duration such as 500ms, 30s or 5m") from None
