"""`stem enqueue`: one task, by name."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from typing import Any

from stem_actors.app import Stem
from stem_actors.errors import UsageError
from stem_actors.model.json_names import parse_time
from stem_cli.connection import duration_of, load_apps, opened, resolved, settings_of
from stem_cli.output import Output
from stem_cli.task import report_end

__all__ = ["run"]


def run(args: argparse.Namespace, output: Output) -> int:
    """Enqueue; print the id, and with `--wait` what came of it."""
    given = resolved(args)
    positional, keyword = _json(args.args, "--args", list), _json(args.kwargs, "--kwargs", dict)
    options = _options(args)
    wait_for = duration_of(args.wait, "--wait")
    known = load_apps(given.settings) if given.settings.app else []
    with opened(settings_of(known[0], given) if known else given.settings, creates=True) as app:
        _lend_tasks(known, app)
        handle = app.enqueue_by_name(args.task_name, positional, keyword, **options)
        if args.wait is None:
            output.document({"id": handle.id}) if output.as_json else output.line(handle.id)
            return 0
        if not output.as_json:
            output.line(handle.id)
        return report_end(handle, app, wait_for, output)


def _lend_tasks(known: list[Stem], app: Stem) -> None:
    """Let the tasks of the user's application give their queue, retries and priority."""
    for each in known:
        for task in each.registry:
            app.registry.add(task.name, task.function, task.options)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    expires: Any = None
    if args.expires is not None:
        is_duration = "-" not in args.expires and ":" not in args.expires
        expires = (
            duration_of(args.expires, "--expires")
            if is_duration
            else dt.datetime.fromtimestamp(_time(args.expires, "--expires"), dt.UTC)
        )
    return {
        "queue": args.queue,
        "priority": args.priority,
        "countdown": duration_of(args.countdown, "--countdown"),
        "eta": None if args.eta is None else _time(args.eta, "--eta"),
        "expires": expires,
        "task_id": args.task_id,
        "headers": dict(_header(text) for text in args.header),
        "max_retries": args.max_retries,
    }


def _json(text: str, option: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{option} is no JSON: {error}. In a shell, put it in single quotes.") from None
    if not isinstance(value, kind):
        raise UsageError(
            f"{option} takes a JSON {'list' if kind is list else 'object'}, such as {'[1, 2]' if kind is list else '{}'}"
        )
    return value


def _time(text: str, option: str) -> float:
    try:
        return parse_time(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _header(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--header is {text!r}, which is not KEY=VALUE")
    return key, value
