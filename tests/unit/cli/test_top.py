from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from stem_actors.ports import QueueDepth
from stem_cli.heartbeats import Beat
from stem_cli.top_frame import frame
from stem_cli.top_view import draw, rows_for, sections, widths_for
from stem_cli.watched import Queue, Watched

NOW = 1_700_000_000.0


def actor(name: str, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain = {
        "id": name,
        "state": "running",
        "restarts": 0,
        "reasons": {},
        "mailbox": 0,
        "lastProgressMs": 1500,
        "handler": "idle",
    }
    return {**plain, **more, **({"children": list(children)} if children else {})}


def beat(worker: str, age: float = 0.0, node: str | None = "web", **extras: Any) -> Beat:
    heartbeat = {
        "workerId": worker,
        "namespace": "stem",
        "timestamp": round((NOW - age) * 1000),
        "isolateCount": 1,
        "inflight": 3,
        "queues": [{"name": "mail", "inflight": 3}],
        "extras": {
            **({"node": node} if node else {}),
            "host": "h1",
            "pid": 42,
            "state": "ready",
            "concurrency": 2,
            "uptimeMs": 60_000,
            "subscriptions": {"queues": ["default"]},
            "active": [{"id": f"id-{worker}", "task": "shop.mail", "queue": "mail", "attempt": 0, "runtimeMs": 1000}],
            "throughput": [{"queue": "mail", "succeeded": 5, "failed": 0, "retried": 0, "perSecond": 1.25}],
            "executors": [{"pid": 4711, "state": "busy", "inside": 1}],
            "tree": [
                actor("settler", restarts=2, reasons={"crashed": 2}, handler="_Settle"),
                actor("work", actor("executor_pool", mailbox=7), actor("consumer")),
            ],
            **extras,
        },
    }
    return Beat.read(heartbeat, NOW, None, 10.0)


def look(*beats: Beat, queues: Sequence[Queue] = (), only: Sequence[str] = ()) -> dict[str, Any]:
    return frame(Watched(NOW, beats, queues), "stem", "redis://h:6379/0", only)


MAIL = Queue(QueueDepth("mail", 4, 3, 2, 1, 61.5), True, 2.5)


# ---------------------------------------------------------------- the document


def test_workers_are_gathered_by_their_node() -> None:
    found = look(beat("web-1"), beat("web-2", age=50), beat("old-1", node=None))
    assert found["nodes"] == [
        {"node": "old", "host": "h1", "workers": 1, "ready": 1, "running": 1, "concurrency": 2, "inflight": 3},
        {"node": "web", "host": "h1", "workers": 2, "ready": 1, "running": 2, "concurrency": 4, "inflight": 6},
    ]


def test_a_run_has_gone_on_since_the_heartbeat_unless_that_is_stale() -> None:
    found = look(beat("a-1", age=4), beat("a-2", age=50))
    assert [(run["worker"], run["runtimeMs"]) for run in found["running"]] == [("a-1", 5000), ("a-2", 1000)]


def test_only_the_workers_named_are_shown_and_those_missing_are_said() -> None:
    found = look(beat("a-1"), beat("a-2"), queues=[MAIL], only=["a-2", "a-3"])
    assert [each["workerId"] for each in found["workers"]] == ["a-2"]
    assert {run["worker"] for run in found["running"]} == {"a-2"}
    assert (found["missing"], len(found["queues"])) == (["a-3"], 1)


def test_a_heartbeat_of_an_older_version_is_shown_as_well() -> None:
    bare = Beat.read({"worker_id": "w-1", "timestamp": round(NOW * 1000)}, NOW, None, 10.0)
    found = look(bare)
    assert (found["workers"][0]["tree"], found["workers"][0]["perSecond"], found["running"]) == ([], None, [])
    assert "w-1" in screen(found)


# ---------------------------------------------------------------- the screen


def screen(found: dict[str, Any] | None, hindrance: str | None = None, width: int = 120, height: int = 60) -> str:
    drawn = io.StringIO()
    console = Console(file=drawn, width=width, height=height, color_system=None)
    console.print(draw(found, hindrance, width, height))
    return drawn.getvalue()


def test_everything_is_on_a_large_screen() -> None:
    lines = [line.split() for line in screen(look(beat("web-1"), queues=[MAIL])).splitlines()]
    assert ["web", "1", "/", "1", "1", "/", "2", "3", "h1"] in lines
    assert ["mail", "4", "3", "2", "1", "1m1s", "2.5", "paused"] in lines
    assert ["web-1", "ready", "1", "/", "2", "3", "1.25", "0ms", "ago", "1m", "42"] in lines
    assert ["shop.mail", "id-web-1", "1s", "web-1", "mail", "0"] in lines
    assert ["settler", "running", "2", "0", "1s", "ago", "Settle", "crashed", "2"] in lines
    assert ["executor_pool", "running", "0", "7", "1s", "ago"] in lines
    assert ["executor", "4711", "busy", "1"] in lines


def test_the_tree_is_indented_as_it_is_nested() -> None:
    (tree,) = (section for section in sections(look(beat("web-1"))) if section.title == "supervision trees")
    assert [row[0] for row in tree.rows] == [
        "web-1",
        "  settler",
        "  work",
        "    executor_pool",
        "      executor 4711",
        "    consumer",
    ]


@pytest.mark.parametrize("width", [1, 5, 12, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 12, 24, 60])
def test_no_size_is_too_small_and_nothing_is_larger_than_the_screen(width: int, height: int) -> None:
    found = look(*(beat(f"web-{number}", age=number * 10) for number in range(6)), queues=[MAIL] * 5)
    lines = screen(found, width=width, height=height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_what_there_is_no_room_for_is_counted() -> None:
    found = look(*(beat(f"web-{number}") for number in range(30)))
    assert "and 2" in screen(found, height=24)
    assert "more" in screen(found, height=24)


def test_a_store_that_is_away_is_said_above_what_was_seen_last() -> None:
    assert "it is away" in screen(None, "it is away")
    both = screen(look(beat("web-1")), "it is away")
    assert "it is away" in both
    assert "web-1" in both


def test_no_cell_is_taken_for_markup() -> None:
    assert "[red]" in screen(look(beat("[red]x-1")))


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([3, 5], 100, [3, 5]),
        ([10, 10], 12, [6, 6]),
        ([3, 10, 10], 13, [3, 5, 5]),
        ([10, 10], 5, [5, 0]),
        ([10, 10], 3, [0, 0]),
        ([], 3, []),
        ([4], -2, [0]),
    ],
)
def test_lines_are_shared_and_nobody_gets_too_few_to_read(wanted: list[int], room: int, given: list[int]) -> None:
    assert rows_for(wanted, room) == given


@pytest.mark.parametrize(
    ("width", "widths"),
    [(100, [2, 30, 5]), (41, [2, 30, 5]), (40, [2, 29, 5]), (21, [2, 10, 5]), (20, [2, 16]), (13, [2]), (1, [1])],
)
def test_wide_columns_give_way_and_then_the_last_ones_go(width: int, widths: list[int]) -> None:
    assert widths_for(("A", "B", "Count"), [["aa", "b" * 30, "1"]], width) == widths
