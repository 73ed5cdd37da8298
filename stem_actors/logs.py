"""Logging of our own processes: one line for each record on stderr, as `pretty`, `plain` (logfmt) or `json`.

Code logs with the standard library and gives its data as `extra=`; every format shows it. Programs that only enqueue set up their
own logging: nothing here is touched unless `set_up_logging` is called.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

__all__ = ["FORMATTERS", "JsonFormatter", "PlainFormatter", "PrettyFormatter", "set_up_logging"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"debug": "2", "info": "36", "warning": "33", "error": "31", "critical": "1;31"}


def set_up_logging(
    level: str, format: str, fields: Callable[[], Mapping[str, Any]] | None = None, stream: TextIO | None = None
) -> logging.Handler:
    """Send all log records of this process to stderr, in place of any handler there was.

    `fields` is asked at each record for data to add to it, in the thread that logs: a worker's name, the task that runs. What the
    record brings itself wins. `pretty` is in colour on a terminal, unless `NO_COLOR` is set.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrettyFormatter(_wants_colour(stream)) if format == "pretty" else FORMATTERS[format]())
    if fields is not None:
        handler.addFilter(_adder(fields))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    return handler


def _wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _adder(fields: Callable[[], Mapping[str, Any]]) -> Callable[[logging.LogRecord], bool]:
    def add(record: logging.LogRecord) -> bool:
        for key, value in fields().items():
            record.__dict__.setdefault(key, value)
        return True

    return add


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the record's data, and `stack` when there was an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _iso(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_data(record)),
        }
        stack = _stack(self, record)
        if stack:
            line["stack"] = stack
        return json.dumps(line, default=str, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    """logfmt: `time=… level=… logger=… msg=… key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = [
            ("time", _iso(record)),
            ("level", record.levelname.lower()),
            ("logger", record.name),
            ("msg", record.getMessage()),
        ]
        pairs += _data(record)
        stack = _stack(self, record)
        if stack:
            pairs.append(("stack", stack))
        return " ".join(f"{key}={_quoted(value)}" for key, value in pairs)


class PrettyFormatter(logging.Formatter):
    """For people: the time of day, the level, the message, then the data; tracebacks on lines of their own."""

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        time = dt.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        data = " ".join(f"{key}={_quoted(value)}" for key, value in _data(record))
        label = self._painted(f"{level:<8}", _COLOURS.get(level, "0"))
        line = f"{self._painted(time, '2')} {label} {record.getMessage()}{'  ' if data else ''}{self._painted(data, '2')}"
        stack = _stack(self, record)
        return f"{line}\n{stack}" if stack else line

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text


FORMATTERS: Mapping[str, type[logging.Formatter]] = {"pretty": PrettyFormatter, "plain": PlainFormatter, "json": JsonFormatter}


def _data(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """What was given as `extra=` or added by `fields`."""
    return ((key, value) for key, value in record.__dict__.items() if key not in _STANDARD and value is not None)


def _iso(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stack(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return formatter.formatException(record.exc_info)
    return record.exc_text or (formatter.formatStack(record.stack_info) if record.stack_info else "")


def _quoted(value: Any) -> str:
    """A logfmt value: bare when it can be, else in quotes, always on one line."""
    text = str(value)
    bare = text and not any(character.isspace() or character in '="\\' for character in text) and text.isprintable()
    return text if bare else json.dumps(text, ensure_ascii=False)
