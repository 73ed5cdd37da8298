"""`stem top`: nodes, workers, queues, what runs and the supervision trees, again and again until it is told to end."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from stem_actors.config import masked_url
from stem_actors.errors import BrokerUnavailable, UsageError
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.keyboard import keys_of_terminal
from stem_cli.output import Output
from stem_cli.top_frame import frame
from stem_cli.top_view import draw, print_frame
from stem_cli.watched import watch

__all__ = ["run"]

Read: TypeAlias = Callable[[], dict[str, Any]]
_LEAST = 0.1  # seconds between two looks


def run(args: argparse.Namespace, output: Output) -> int:
    interval = duration_of(args.interval, "--interval")
    if interval is None or interval < _LEAST:
        raise UsageError("--interval needs a duration of at least 100ms, such as 2s")
    settings = resolved(args).settings
    with opened(settings) as app:

        def read() -> dict[str, Any]:
            return frame(watch(app.stores, settings), settings.channel_namespace, masked_url(settings.broker_url), args.worker)

        if args.once or not (output.is_live or output.as_json):
            return _once(read, output)
        return _stream(read, interval, output) if output.as_json else _screen(read, interval, output)


def _once(read: Read, output: Output) -> int:
    found = read()
    if output.as_json:
        output.document(found)
    else:
        print_frame(found, output)
    return ExitCode.OK


def _stream(read: Read, interval: float, output: Output) -> NoReturn:
    """A document a line, until Ctrl-C or until who reads has gone."""
    while True:
        try:
            output.json_line(read())
        except BrokerUnavailable as error:
            output.message(_away(error))
        time.sleep(interval)


def _screen(read: Read, interval: float, output: Output) -> int:
    """The whole terminal, until `q`. What was seen last stays there while a store is away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the terminal gets its own screen back
    seen: dict[str, Any] | None = None
    with keys_of_terminal() as next_key, output.screen(full=True) as screen:
        while True:
            hindrance = None
            try:
                seen = read()
            except BrokerUnavailable as error:
                hindrance = _away(error)
            screen.draw(draw(seen, hindrance, *screen.size))
            until = time.monotonic() + interval
            while (left := until - time.monotonic()) > 0:
                if next_key(left) in ("q", "Q", ""):
                    return ExitCode.OK


def _away(error: BrokerUnavailable) -> str:
    return f"the store does not answer, trying again: {error}"
