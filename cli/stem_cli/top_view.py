"""How `stem top` looks: tables under one another, as many of their rows and columns as the terminal has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from stem_cli.output import Output, readable_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Section", "draw", "print_frame", "rows_for", "sections", "widths_for"]

_NARROWEST = 10  # what a cell is cut off at before its row goes without its last column
_GAP = 2
_LEAST = 4  # lines of a table that is worth its place: a blank one, its columns, a row, and what is left out

Row: TypeAlias = tuple[str, Sequence[Any]]
"""A style of rich's, and the cells."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table. Columns stand in the order of what they are worth: the last is the first to go.

    `styles`: one of rich's for each row.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    styles: Sequence[str]


def print_frame(frame: Mapping[str, Any], output: Output) -> None:
    """All of it, for a pipe or for one look."""
    output.line(_headline(frame))
    for section in sections(frame):
        if section.rows:
            output.line(f"\n{section.title}")
            output.table(section.columns, section.rows)
    for note in _notes(frame):
        output.message(note)


def draw(frame: Mapping[str, Any] | None, hindrance: str | None, width: int, height: int) -> RenderableType:
    """As much of it as there is room for."""
    from rich.console import Group
    from rich.text import Text

    lines = [_headline(frame) + "  (q ends this)"] if frame is not None else []
    notes = [hindrance] if hindrance else [] if frame is None else _notes(frame)
    head = [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]
    head += [Text(note, style="bold yellow", no_wrap=True, overflow="ellipsis") for note in notes]
    filled = [section for section in sections(frame) if section.rows] if frame is not None else []
    given = rows_for([len(section.rows) + 2 for section in filled], height - len(head))
    parts = [part for section, lines in zip(filled, given, strict=True) if lines for part in _part(section, lines, width)]
    return Group(*head, *parts)


def rows_for(wanted: Sequence[int], room: int) -> list[int]:
    """Lines for each: those that come first get a readable part first, the rest is shared, and none gets more than it wants."""
    given: list[int] = []
    for lines in wanted:
        least = min(lines, _LEAST)
        given.append(least if least <= room else 0)
        room -= given[-1]
    while room > 0 and any(0 < has < lines for has, lines in zip(given, wanted, strict=True)):
        for index, lines in enumerate(wanted):
            if 0 < given[index] < lines and room > 0:
                given[index] += 1
                room -= 1
    return given


def widths_for(columns: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of as many columns as are readable within `width`, from the first on. The widest give way first."""
    needed = [max([len(column), *(len(text[index]) for text in texts)]) for index, column in enumerate(columns)]
    least = [min(need, max(_NARROWEST, len(column))) for need, column in zip(needed, columns, strict=True)]
    shown = 1
    while shown < len(columns) and sum(least[: shown + 1]) + _GAP * shown <= width:
        shown += 1
    widths = needed[:shown]
    for _ in range(sum(widths) + _GAP * (shown - 1) - width):
        widest = max(range(shown), key=lambda index: widths[index] - least[index])
        widths[widest] = max(1, widths[widest] - 1)
    return widths


def _part(section: Section, lines: int, width: int) -> Sequence[RenderableType]:
    """A blank line, the columns' names, and rows; `lines` at most."""
    from rich.table import Table
    from rich.text import Text

    rows, left_out = list(section.rows), 0
    if len(rows) > lines - 2:
        rows = rows[: lines - 3]
        left_out = len(section.rows) - len(rows)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    widths = widths_for(section.columns, texts, width)
    for index, column_width in enumerate(widths):
        is_number = all(isinstance(row[index], int | float | None) for row in section.rows)
        table.add_column(
            section.columns[index],
            justify="right" if is_number else "left",
            overflow="ellipsis",
            no_wrap=True,
            width=column_width,
        )
    for text, style in zip(texts, section.styles, strict=False):
        table.add_row(*map(Text, text[: len(widths)]), style=style)
    more = [Text(f"and {left_out} more", style="dim", no_wrap=True, overflow="ellipsis")] if left_out else []
    return Text(""), table, *more


# ---------------------------------------------------------------- what is shown


def sections(frame: Mapping[str, Any]) -> list[Section]:
    """The tables of a frame, from top to bottom."""
    return [
        _section("nodes", ("Node", "Ready", "Running", "In flight", "Host"), [_node(each) for each in frame["nodes"]]),
        _section(
            "queues",
            ("Queue", "Pending", "Inflight", "Delayed", "Dead", "Oldest", "Per second", "Paused"),
            [_queue(each) for each in frame["queues"]],
        ),
        _section(
            "workers",
            ("Worker", "State", "Running", "In flight", "Done", "Per second", "Heartbeat", "Up for", "Process"),
            [_worker(each) for each in frame["workers"]],
        ),
        _section(
            "running tasks",
            ("Task", "ID", "Running for", "Worker", "Queue", "Attempt"),
            [_run(each) for each in frame["running"]],
        ),
        _section(
            "supervision trees",
            ("Actor", "State", "Restarts", "Mailbox", "Last progress", "At work on", "Reasons"),
            [row for worker in frame["workers"] for row in _tree(worker)],
        ),
    ]


def _section(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Section:
    return Section(title, columns, [row for _, row in rows], [style for style, _ in rows])


def _headline(frame: Mapping[str, Any]) -> str:
    workers = frame["workers"]
    ready = sum(node["ready"] for node in frame["nodes"])
    counted = f"{len(workers)} worker{'' if len(workers) == 1 else 's'}, {ready} ready"
    return f"stem {frame['namespace']}: {counted}, {len(frame['running'])} running  {frame['timestamp']}  {frame['broker']}"


def _notes(frame: Mapping[str, Any]) -> list[str]:
    silent = [f"worker {each} has sent no heartbeat lately" for each in frame["missing"]]
    return silent or ([] if frame["workers"] else ["no worker has sent a heartbeat lately"])


def _node(node: Mapping[str, Any]) -> Row:
    ready, workers = node["ready"], node["workers"]
    running = f"{node['running']} / {node['concurrency']}"
    return "" if ready == workers else "yellow", (node["node"], f"{ready} / {workers}", running, node["inflight"], node["host"])


def _queue(queue: Mapping[str, Any]) -> Row:
    counts = [queue[name] for name in ("pending", "inflight", "delayed", "dead")]
    oldest, paused = readable_duration(_seconds(queue["oldestMs"])), "paused" if queue["paused"] else None
    return "yellow" if paused else "", (queue["queue"], *counts, oldest, queue["perSecond"], paused)


def _worker(worker: Mapping[str, Any]) -> Row:
    state, reason = worker["state"], worker["readyReason"]
    shown = f"{state} ({reason})" if reason and reason != state else state
    style = "bold red" if worker["stale"] or state == "stuck" else "" if state == "ready" else "yellow"
    return style, (
        worker["workerId"],
        f"{shown}, stale" if worker["stale"] else shown,
        f"{worker['running']} / {worker['concurrency']}",
        worker["inflight"],
        worker["completed"],
        worker["perSecond"],
        f"{readable_duration(_seconds(worker['ageMs']))} ago",
        readable_duration(_seconds(worker["uptimeMs"])),
        worker["pid"],
    )


def _run(run: Mapping[str, Any]) -> Row:
    return "", (
        run["task"],
        run["id"],
        readable_duration(_seconds(run["runtimeMs"])),
        run["worker"],
        run["queue"],
        run["attempt"],
    )


def _tree(worker: Mapping[str, Any]) -> list[Row]:
    """A worker, and all below it."""
    rows: list[Row] = [("bold", (worker["workerId"], worker["state"], None, None, None, None, None))]
    for child in worker["tree"]:
        rows += _actor(child, worker["executors"], "  ")
    return rows if worker["tree"] else []


def _actor(actor: Mapping[str, Any], executors: Sequence[Mapping[str, Any]], indent: str) -> list[Row]:
    at_work = actor["handler"] not in ("idle", "none")
    reasons = ", ".join(f"{reason} {count}" for reason, count in (actor.get("reasons") or {}).items())
    style = "yellow" if actor["restarts"] or actor["state"] != "running" else ""
    progress = f"{readable_duration(_seconds(actor['lastProgressMs']))} ago"
    handler = actor["handler"].lstrip("_") if at_work else None
    rows: list[Row] = [
        (style, (f"{indent}{actor['id']}", actor["state"], actor["restarts"], actor["mailbox"], progress, handler, reasons))
    ]
    for child in actor.get("children") or ():
        rows += _actor(child, executors, indent + "  ")
    if actor["id"] == "executor_pool":
        rows += [
            ("", (f"{indent}  executor {executor['pid']}", executor["state"], None, executor["inside"], None, None, None))
            for executor in executors
        ]
    return rows


def _seconds(milliseconds: Any) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
