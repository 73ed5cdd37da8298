"""`stem tasks`: what an application can run."""

from __future__ import annotations

import argparse
from typing import Any

from stem_actors.config import Settings
from stem_actors.model.task import TaskDefinition
from stem_cli.connection import load_apps, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["ls"]


def ls(args: argparse.Namespace, output: Output) -> int:
    settings = resolved(args).settings
    if settings.app is None and not settings.tasks:
        output.message("no application is named: use --app MODULE[:ATTR], STEM_APP or STEM_TASKS")
    found = [(task, app.settings) for app in load_apps(settings) for task in app.registry]
    found.sort(key=lambda pair: pair[0].name)
    if output.as_json:
        output.document([_task_json(task, settings) for task, settings in found])
    elif found:
        rows = [
            (t.name, t.options.description, "yes" if t.options.idempotent else "no", ",".join(t.options.tags)) for t, _ in found
        ]
        output.table(("NAME", "DESCRIPTION", "IDEMPOTENT", "TAGS"), rows)
    return ExitCode.OK


def _task_json(task: TaskDefinition, settings: Settings) -> dict[str, Any]:
    options = task.options
    return {
        "name": task.name,
        "description": options.description,
        "idempotent": options.idempotent,
        "tags": list(options.tags),
        "queue": options.queue or settings.default_queue,
        "maxRetries": settings.default_max_retries if options.max_retries is None else options.max_retries,
        "priority": options.priority,
        "isAsync": task.is_async,
        "exclusive": options.exclusive,
        "ignoreResult": options.ignore_result,
        "softTimeLimitMs": _milliseconds(options.soft_time_limit),
        "hardTimeLimitMs": _milliseconds(options.hard_time_limit),
        "visibilityTimeoutMs": _milliseconds(options.visibility_timeout),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
