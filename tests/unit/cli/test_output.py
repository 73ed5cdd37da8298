from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from uuid import UUID

import pytest

from stem_cli.output import Output, readable_bytes, readable_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, None),
        (0, "0ms"),
        (0.25, "250ms"),
        (45.9, "45s"),
        (120, "2m"),
        (125, "2m5s"),
        (3600, "1h"),
        (3605, "1h"),
        (90000, "1d1h"),
        (-1, "0ms"),
    ],
)
def test_durations_read_well(seconds: float | None, text: str | None) -> None:
    assert readable_duration(seconds) == text


def test_a_piped_table_is_aligned_and_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("Queue", "Pending"), [("default", 7), ("x" * 300, 12345), ("none", None)])
    header, first, second, third = capsys.readouterr().out.splitlines()
    assert header == f"{'Queue':<300} | Pending"
    assert first == f"{'default':<300} |       7"
    assert second == f"{'x' * 300} |   12345"
    assert third.startswith("none")


def test_a_table_without_rows_still_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("A", "B"), [])
    assert capsys.readouterr().out == "A | B\n"


def test_a_piped_document_is_one_line_and_shows_what_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    moment = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    Output(as_json=True).document({"at": moment, "n": Decimal("1.50"), "id": UUID(int=1), "raw": b"\x00\xff", "text": "é"})
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == {
        "at": "2025-01-01T00:00:00.000Z",
        "n": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "raw": "AP8=",
        "text": "é",
    }


def on_a_terminal(code: str, **environ: str) -> str:
    """What a program prints on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    env = {"PYTHONPATH": ":".join(sys.path), "TERM": "xterm-256color", "COLUMNS": "80", **environ}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 4096):
            printed += chunk
    except OSError:  # how a pseudo-terminal says that its other end is closed
        pass
    os.close(ours)
    assert child.wait(30) == 0
    return printed.decode()


TABLE = "from stem_cli.output import Output; Output(no_color={}).table(('Queue', 'Pending'), [('[red]q', 7)])"


def test_a_table_on_a_terminal_is_drawn_and_takes_no_cell_for_markup() -> None:
    printed = on_a_terminal(TABLE.format(False))
    assert "[red]q" in printed
    assert "\x1b[1m" in printed


@pytest.mark.parametrize(("flag", "environ"), [(True, {}), (False, {"NO_COLOR": "1"})])
def test_no_color_means_no_colour(flag: bool, environ: dict[str, str]) -> None:
    assert "\x1b[3" not in on_a_terminal(TABLE.format(flag), **environ)


def test_json_on_a_terminal_never_goes_near_rich() -> None:
    code = "import sys; from stem_cli.output import Output; Output(True).document([1]); assert 'rich' not in sys.modules"
    assert on_a_terminal(code) == "[\r\n  1\r\n]\r\n"


PROGRESS = """
import time
from stem_cli import output
output._PATIENCE = {patience}
with output.Output({as_json}).progress('counting', 4) as progress:
    for _ in range(4):
        progress.advance()
        time.sleep(0.1)
"""


def test_what_takes_long_shows_how_far_it_is() -> None:
    printed = on_a_terminal(PROGRESS.format(patience=0.05, as_json=False))
    assert "counting" in printed
    assert "of 4" in printed


@pytest.mark.parametrize(("patience", "as_json"), [(30, False), (0.05, True)])
def test_what_is_soon_done_or_asked_for_as_json_shows_no_progress(patience: float, as_json: bool) -> None:
    assert on_a_terminal(PROGRESS.format(patience=patience, as_json=as_json)) == ""


def test_a_screen_is_drawn_anew_in_place() -> None:
    code = """
from stem_cli.output import Output
with Output().screen() as screen:
    screen.table('one worker', ('Worker', 'State'), [('[red]w', 'starting')])
    screen.table('one worker', ('Worker', 'State'), [('[red]w', 'ready')], ['all is well'])
"""
    printed = on_a_terminal(code)
    assert printed.index("starting") < printed.index("ready")
    assert "\x1b[2K" in printed  # lines are wiped before they are drawn again
    assert "[red]w" in printed
    assert "all is well" in printed


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, None), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (40 * 2**20, "40 MiB"), (3 * 2**50, "3072 TiB")],
)
def test_sizes_read_well(size: int | None, text: str | None) -> None:
    assert readable_bytes(size) == text
