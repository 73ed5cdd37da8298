"""What the init system hears of us, on a real socket."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stem_actors import Settings, node
from stem_actors.sd_notify import InitSystem
from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import ChildSpec, actor
from stem_actors.supervision.tree import start_tree
from tests.fixtures.waiting import until


class Listener:
    """The init system's end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """What has arrived and was not heard yet."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """As the variable holds it, and as `bind` wants it."""
    if request.param == "path":
        return str(tmp_path / "s"), str(tmp_path / "s")
    name = uuid.uuid4().hex
    return f"@{name}", f"\0{name}"


@pytest.fixture
def listener(addresses: tuple[str, str]) -> Iterator[Listener]:
    made = Listener(addresses[1])
    yield made
    made.socket.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., InitSystem]]:
    made: list[InitSystem] = []

    def open_with(**environ: str) -> InitSystem:
        made.append(InitSystem.from_environ(environ))
        return made[-1]

    yield open_with
    for each in made:
        each.close()


def test_nothing_is_said_where_nobody_listens(opened: Callable[..., InitSystem]) -> None:
    init = opened(WATCHDOG_USEC="1000000")
    assert not init.is_listening
    init.ready()
    init.status("ready")
    init.alive(0.0)
    init.stopping(1.0)


def test_readiness_is_said_once(addresses: tuple[str, str], listener: Listener, opened: Callable[..., InitSystem]) -> None:
    init = opened(NOTIFY_SOCKET=addresses[0])
    init.ready()
    init.ready()
    assert listener.heard() == ["READY=1"]


def test_a_status_is_said_in_one_line_when_it_changes(
    addresses: tuple[str, str], listener: Listener, opened: Callable[..., InitSystem]
) -> None:
    init = opened(NOTIFY_SOCKET=addresses[0])
    for text in ("n1-1: starting\nREADY=1", "n1-1: starting\nREADY=1", "ready"):
        init.status(text)
    assert listener.heard() == ["STATUS=n1-1: starting READY=1", "STATUS=ready"]


def test_being_alive_is_said_at_half_the_time_the_watchdog_waits(
    addresses: tuple[str, str], listener: Listener, opened: Callable[..., InitSystem]
) -> None:
    init = opened(NOTIFY_SOCKET=addresses[0], WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    heard = []
    for second in range(16):
        init.alive(100.0 + second)
        heard += [(second, text) for text in listener.heard()]
    assert heard == [(0, "WATCHDOG=1"), (5, "WATCHDOG=1"), (10, "WATCHDOG=1"), (15, "WATCHDOG=1")]


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
    ids=["none", "zero", "nonsense", "of another process"],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(
    tmp_path: Path, watchdog: dict[str, str], opened: Callable[..., InitSystem]
) -> None:
    listener = Listener(str(tmp_path / "s"))
    init = opened(NOTIFY_SOCKET=str(tmp_path / "s"), **watchdog)
    init.alive(0.0)
    init.ready()
    assert listener.heard() == ["READY=1"]
    listener.socket.close()


def test_leaving_is_said_with_the_time_it_may_take(
    addresses: tuple[str, str], listener: Listener, opened: Callable[..., InitSystem]
) -> None:
    opened(NOTIFY_SOCKET=addresses[0]).stopping(40.0)
    assert listener.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000"]


def test_what_starts_after_us_does_not_speak_in_our_name() -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "HOME": "/"}
    InitSystem.from_environ(environ).close()
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "@", "/"])
def test_an_address_that_is_no_socket_of_ours_is_left_alone(address: str) -> None:
    assert not InitSystem.from_environ({"NOTIFY_SOCKET": address}).is_listening


def test_what_was_not_taken_is_said_again(tmp_path: Path, opened: Callable[..., InitSystem]) -> None:
    path = str(tmp_path / "s")
    init = opened(NOTIFY_SOCKET=path)
    init.ready()  # nobody is there yet
    listener = Listener(path)
    init.ready()
    assert listener.heard() == ["READY=1"]
    listener.socket.close()


def test_a_listener_that_does_not_read_holds_nothing_up(tmp_path: Path, opened: Callable[..., InitSystem]) -> None:
    path = str(tmp_path / "s")
    listener = Listener(path)
    init = opened(NOTIFY_SOCKET=path)
    for number in range(2000):  # more than a queue of datagrams holds
        init.status(f"{number}")
    assert 0 < len(listener.heard()) < 2000
    init.status("ready")
    assert listener.heard() == ["STATUS=ready"]
    listener.socket.close()


class Idle(StemActor):
    """Does nothing."""

    def on_receive(self, message: object) -> None:
        """Never called."""


def test_a_node_whose_supervisor_is_stuck_is_not_alive_and_its_watchdog_starves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "s")
    listener = Listener(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setattr(node, "_STILL", 0.2)
    is_blocking, may_go_on = threading.Event(), threading.Event()

    def block(_event: object) -> None:
        """In the supervisor's thread."""
        if is_blocking.is_set():
            may_go_on.wait(30)

    made = node.Node(Settings(name="n"))
    tree = made._tree = start_tree([ChildSpec("idle", actor(Idle))], on_event=block, tick=0.02)
    try:

        def turn() -> list[str]:
            made._look_at_ourselves(tree)
            return listener.heard()

        until(lambda: "WATCHDOG=1" in turn(), what="a sign of life")
        assert made._livez().is_good
        is_blocking.set()
        tree.directory.kill("idle")  # its end is an event
        until(lambda: not made._livez().is_good or turn() is None, what="its being found out")
        assert "its supervisor has not moved" in made._livez().reasons["node"][0]
        assert [turn() for _ in range(3)] == [[], [], []]
        is_blocking.clear()
        may_go_on.set()
        until(lambda: "WATCHDOG=1" in turn(), what="a sign of life after all")
    finally:
        may_go_on.set()
        tree.stop(5)
        made._init.close()
        listener.socket.close()


def test_a_node_whose_main_thread_stands_still_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(node, "_STILL", 0.2)
    made = node.Node(Settings(name="n"))
    tree = made._tree = start_tree([ChildSpec("idle", actor(Idle))], tick=0.02)
    try:
        made._look_at_ourselves(tree)
        assert made._livez().is_good
        until(lambda: any("main thread has not moved" in reason for reason in made._livez().reasons["node"]))
        assert not made._livez().is_good
    finally:
        tree.stop(5)
