"""`stem top`: on a terminal, in a pipe and as JSON; and `stem worker status --follow` on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from tests.fixtures.node import Place, eventually
from tests.fixtures.redis_server import own_server
from tests.fixtures.shell import Shell
from tests.fixtures.terminal import Terminal

LEFT = "\x1b[?1049l"  # how a full screen is given back
COLOURED = re.compile(r"\x1b\[([0-9]+;)*(3[0-8]|9[0-7])(;[0-9]+)*m")


@pytest.fixture(scope="module")
def busy(shared_place: Place) -> Iterator[str]:
    """The id of a task that runs on a node of one worker while the tests look on."""
    shared_place.environ["STEM_HEARTBEAT_INTERVAL"] = "1s"
    shared_place.start()
    task_id = shared_place.app.enqueue_by_name("jobs.wait_for", ["go"]).id
    shared_place.await_runs(task_id)
    eventually(lambda: shared_place.shell.json("stem", "top", "--once", "--json")["running"], hint="a heartbeat with its run")
    yield task_id
    shared_place.open_gate()


def test_a_terminal_shows_everything_until_q(shared_place: Place, busy: str) -> None:
    with closing(Terminal(shared_place.shell, "stem", "top", "--interval", "200ms")) as terminal:
        terminal.read_until("revoke_listener")
        lines = terminal.screen()
        for first, *rest in (
            ("stem stem: 1 worker, 1 ready, 1 running",),
            ("n1 ", "1 / 1", "1 / 2"),
            ("default ", "0", "1"),
            ("n1-1 ", "ready", "1 / 2"),
            ("jobs.wait_for", busy, "n1-1", "default"),
            ("  settler", "running"),
            ("    executor_pool", "running"),
            ("      executor ", "busy"),
        ):
            assert any(line.startswith(first) and all(each in line for each in rest) for line in lines), (first, lines)
        terminal.forget()
        terminal.read_until("revoke_listener")  # it is drawn again
        terminal.press("xq")
        assert terminal.wait() == 0
        assert LEFT in terminal.printed
        assert terminal.has_its_modes_back


@pytest.mark.parametrize(("number", "code"), [(None, 130), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_interrupts_it_gets_the_terminal_back(
    shared_place: Place, busy: str, number: signal.Signals | None, code: int
) -> None:
    with closing(Terminal(shared_place.shell, "stem", "top", "--interval", "1m")) as terminal:
        terminal.read_until("n1-1")
        if number is None:
            terminal.press("\x03")
        else:
            os.kill(terminal.process.pid, number)
        assert terminal.wait() == code
        assert LEFT in terminal.printed
        assert terminal.has_its_modes_back


def test_a_terminal_may_be_narrow_and_may_change(shared_place: Place, busy: str) -> None:
    with closing(Terminal(shared_place.shell, "stem", "top", "--interval", "200ms", columns=20, lines=6)) as terminal:
        terminal.read_until("1 / 1")
        assert all(len(line) <= 20 for line in terminal.screen())
        assert len(terminal.screen()) <= 6
        terminal.resize(1, 1)
        terminal.forget()
        terminal.read_until("…")
        terminal.resize(120, 50)
        terminal.read_until("revoke_listener")
        terminal.press("q")
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("flags", "environ", "is_coloured"), [([], {}, True), (["--no-color"], {}, False), ([], {"NO_COLOR": "1"}, False)]
)
def test_colours_go_where_they_are_wanted(
    shared_place: Place, busy: str, flags: list[str], environ: dict[str, str], is_coloured: bool
) -> None:
    # A worker that is not there is a note in yellow.
    words = ("stem", "top", "-w", "n1-1", "-w", "n9-9", *flags)
    with closing(Terminal(shared_place.shell, *words, environ=environ)) as terminal:
        terminal.read_until("revoke_listener")
        assert "worker n9-9 has sent no heartbeat lately" in terminal.printed
        assert bool(COLOURED.search(terminal.printed)) is is_coloured
        terminal.press("q")
        assert terminal.wait() == 0


def test_a_terminal_that_only_prints_gets_it_once(shared_place: Place, busy: str) -> None:
    with closing(Terminal(shared_place.shell, "stem", "top", environ={"TERM": "dumb"})) as terminal:
        assert terminal.wait() == 0
        assert "\x1b[" not in terminal.printed
        assert "supervision trees" in terminal.printed


def test_a_pipe_gets_it_once_and_unabridged(shared_place: Place, busy: str) -> None:
    text = shared_place.shell.out("stem", "top")
    assert [line for line in text.splitlines() if line and " | " not in line][1:] == [
        "nodes",
        "queues",
        "workers",
        "running tasks",
        "supervision trees",
    ]
    assert busy in text
    assert shared_place.shell.out("stem", "top", "--once").splitlines()[2:] != []


def test_json_is_a_document_a_line(shared_place: Place, busy: str) -> None:
    watching = shared_place.shell.start("stem", "top", "--json", "--interval", "100ms")
    assert watching.stdout is not None
    try:
        documents = [json.loads(watching.stdout.readline()) for _ in range(3)]
    finally:
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert (watching.returncode, said) == (130, "")
    assert len({each["timestamp"] for each in documents}) == 3
    for each in documents:
        assert [run["id"] for run in each["running"]] == [busy]
    assert documents[0]["running"][0]["runtimeMs"] < documents[2]["running"][0]["runtimeMs"] + 1000


def test_workers_that_are_not_there_are_said(shared_place: Place, busy: str) -> None:
    done = shared_place.shell.run("stem", "top", "--once", "--worker", "n9-9")
    assert done.returncode == 0
    assert "worker n9-9 has sent no heartbeat lately" in done.stderr
    assert shared_place.shell.json("stem", "top", "--once", "--json", "-w", "n9-9")["missing"] == ["n9-9"]


def test_heartbeats_are_followed_in_place_on_a_terminal(shared_place: Place, busy: str) -> None:
    with closing(Terminal(shared_place.shell, "stem", "worker", "status", "--follow", "--timeout", "0")) as terminal:
        terminal.read_until("n1-1")
        terminal.forget()
        terminal.read_until("n1-1")
        assert "\x1b[2K" in terminal.printed, "lines are wiped before they are drawn again"
        assert "\x1b[?1049h" not in terminal.printed
        terminal.press("\x03")
        assert terminal.wait() == 130
        assert terminal.has_its_modes_back


# ---------------------------------------------------------------- without a node


@pytest.mark.parametrize("interval", ["soon", "0", "10ms", ""])
def test_an_interval_that_is_none_is_wrong_usage(tmp_path: Path, interval: str) -> None:
    shell = Shell(tmp_path)
    with Stem(settings=Settings(broker_url=f"sqlite:///{tmp_path}/stem.db")) as app:
        app.enqueue_by_name("t")
    assert shell.code("stem", "top", "--interval", interval)[0] == 64
    assert shell.run("stem", "top").stderr == "no worker has sent a heartbeat lately\n"


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert Shell(tmp_path).code("stem", "top", "--once")[0] == 70
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_goes_away_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    with own_server() as server:
        shell = Shell(tmp_path, {"STEM_BROKER_URL": server.url})
        with closing(Terminal(shell, "stem", "top", "--interval", "200ms")) as terminal:
            terminal.read_until("no worker has sent a heartbeat")
            server.kill()
            terminal.read_until("does not answer", timeout=40)
            assert any(line.startswith("stem stem: 0 workers") for line in terminal.screen()), "what was seen last stays"
            server.start()
            terminal.forget()
            terminal.read_until("no worker has sent a heartbeat", timeout=40)
            terminal.press("q")
            assert terminal.wait() == 0
        server.kill()
        code, text = shell.code("stem", "top", "--once")
        assert (code, "Traceback" in text) == (70, False)
        server.start()
