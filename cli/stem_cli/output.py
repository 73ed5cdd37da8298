"""What a command prints: data on stdout, messages for people on stderr.

A table is drawn by rich on a terminal, and is plain aligned text elsewhere, where nothing is cut off. JSON never goes near rich.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:  # rich is slow to load, and JSON and pipes do without it
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress as Bar

__all__ = ["Output", "Progress", "Screen", "readable_bytes", "readable_duration"]

_PATIENCE = 1.0  # seconds: what ends sooner shows no progress
_PRINTERS = ("dumb", "unknown")  # values of TERM


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

    def styled(self, *parts: tuple[str, str]) -> None:
        """A line of texts, each in a style of rich's (`bold red`) on a terminal and plain elsewhere; none is taken for markup."""
        if sys.stdout.isatty():
            from rich.text import Text

            self._console().print(Text.assemble(*parts), soft_wrap=True)
        else:
            self.line("".join(text for text, _ in parts))

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

    # ------------------------------------------------------------ terminals

    @property
    def is_live(self) -> bool:
        """Whether stdout is a screen that can be drawn anew: not a pipe, not JSON, and no terminal that only prints."""
        return sys.stdout.isatty() and not self.as_json and os.environ.get("TERM") not in _PRINTERS

    @contextmanager
    def progress(self, text: str, total: int | None = None) -> Iterator[Progress]:
        """A bar on stderr for the time of a block, when that takes longer than a second and a person is looking."""
        progress = Progress(text, total, is_shown=sys.stderr.isatty() and not self.as_json, no_color=self._no_color)
        try:
            yield progress
        finally:
            progress.close()

    @contextmanager
    def screen(self, full: bool = False) -> Iterator[Screen]:
        """A part of the terminal, or all of it, to be drawn anew in place; for `is_live` only. A full one is gone afterwards."""
        from rich.live import Live

        with Live(console=self._console(), auto_refresh=False, screen=full, vertical_overflow="ellipsis") as live:
            yield Screen(live)

    def _console(self) -> Console:
        from rich.console import Console

        return Console(no_color=self._no_color)

    # ------------------------------------------------------------ tables

    def _plain_table(self, columns: Sequence[str], texts: Sequence[Sequence[str]], is_number: Sequence[bool]) -> None:
        widths = [max(len(column), *(len(row[i]) for row in texts)) if texts else len(column) for i, column in enumerate(columns)]
        for row in (columns, *texts):
            cells = [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(row, widths, is_number, strict=True)]
            print(" | ".join(cells).rstrip())
        sys.stdout.flush()

    def _rich_table(self, columns: Sequence[str], texts: Sequence[Sequence[str]], is_number: Sequence[bool]) -> None:
        self._console().print(drawn_table(columns, texts, is_number))


class Progress:
    """How far a command is. `advance` and `say` are for the command's own thread."""

    def __init__(self, text: str, total: int | None, is_shown: bool, no_color: bool) -> None:
        self._text = text
        self._total = total
        self._done = 0
        self._no_color = no_color
        self._bar: Bar | None = None
        self._lock = threading.Lock()
        # A timer, since what takes long may be one call that does not come back to say so.
        self._timer = threading.Timer(_PATIENCE, self._show) if is_shown else None
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def advance(self, by: int = 1) -> None:
        self._done += by
        self._update()

    def say(self, text: str) -> None:
        """What is going on now."""
        self._text = text
        self._update()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()

    def _update(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], description=self._text, completed=self._done)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        words = TextColumn("{task.description}", markup=False)
        counted = () if self._total is None else (TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),)
        console = Console(stderr=True, no_color=self._no_color)
        bar = Progress(SpinnerColumn(), words, BarColumn(), *counted, TimeElapsedColumn(), console=console, transient=True)
        bar.add_task(self._text, total=self._total, completed=self._done)
        with self._lock:
            if self._timer is not None:  # else it ended just now
                self._bar = bar
                bar.start()


class Screen:
    """What is shown in place of what was shown before."""

    def __init__(self, live: Live) -> None:
        self._live = live

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        size = self._live.console.size
        return size.width, size.height

    def draw(self, what: RenderableType) -> None:
        self._live.update(what, refresh=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()) -> None:
        """Draw a title, a table and notes under it."""
        from rich.console import Group
        from rich.text import Text

        texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
        table = drawn_table(columns, texts, [False] * len(columns))
        self.draw(Group(Text(title), table, *map(Text, notes)))


def drawn_table(columns: Sequence[str], texts: Sequence[Sequence[str]], is_number: Sequence[bool]) -> RenderableType:
    """A table as rich draws it. No cell is taken for markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, right in zip(columns, is_number, strict=True):
        table.add_column(column, justify="right" if right else "left", overflow="ellipsis")
    for row in texts:
        table.add_row(*map(Text, row))
    return table


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


def readable_bytes(size: float | None) -> str | None:
    """`512 B`, `1.5 KiB`, `40 MiB`."""
    if size is None:
        return None
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"


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
