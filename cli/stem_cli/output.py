"""What a command prints: data on stdout, messages for people on stderr.

A table is drawn by rich on a terminal, and is plain aligned text elsewhere, where nothing is cut off. JSON never goes near rich.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["Output", "readable_duration"]


class Output:
    """Where one command's output goes, and how it looks."""

    def __init__(self, as_json: bool = False, no_color: bool = False) -> None:
        self.as_json = as_json
        self._no_color = no_color or bool(os.environ.get("NO_COLOR"))

    def message(self, text: str) -> None:
        """Tell people something that is no data."""
        print(text, file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        print(text, flush=True)

    def document(self, value: Any) -> None:
        """One JSON document: on one line, for a person on several."""
        print(json.dumps(value, default=_plain, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None), flush=True)

    def json_line(self, value: Any) -> None:
        """One JSON value of several, each on a line of its own."""
        print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows under their column's names; numbers stand to the right."""
        texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
        is_number = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
        if sys.stdout.isatty():
            self._rich_table(columns, texts, is_number)
        else:
            self._plain_table(columns, texts, is_number)

    def fields(self, pairs: Mapping[str, Any]) -> None:
        """One thing's properties, one on each line; those without a value are left out."""
        shown = {key: value for key, value in pairs.items() if value is not None}
        width = max(map(len, shown), default=0)
        for key, value in shown.items():
            text = str(value).replace("\n", "\n" + " " * (width + 2))
            print(f"{key:<{width}}  {text}", flush=True)

    def _plain_table(self, columns: Sequence[str], texts: Sequence[Sequence[str]], is_number: Sequence[bool]) -> None:
        widths = [max(len(column), *(len(row[i]) for row in texts)) if texts else len(column) for i, column in enumerate(columns)]
        for row in (columns, *texts):
            cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, is_number, strict=True)]
            print(" | ".join(cells).rstrip())
        sys.stdout.flush()

    def _rich_table(self, columns: Sequence[str], texts: Sequence[Sequence[str]], is_number: Sequence[bool]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column, right in zip(columns, is_number, strict=True):
            table.add_column(column, justify="right" if right else "left", overflow="ellipsis")
        for row in texts:
            table.add_row(*map(Text, row))
        Console(no_color=self._no_color).print(table)


def readable_duration(seconds: float | None) -> str | None:
    """`250ms`, `45s`, `2m5s`, `3h`, `2d4h`: the two largest units."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{round(max(0.0, seconds) * 1000)}ms"
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return "".join(f"{count}{unit}" for count, unit in parts[:2] if count)


def _plain(value: Any) -> Any:
    """What JSON has no form for: bytes become base64, times ISO-8601."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case Decimal() | UUID():
            return str(value)
        case _:
            return repr(value)
