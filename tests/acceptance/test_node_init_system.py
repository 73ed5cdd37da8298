"""`stem-node` as systemd starts it: what it says of itself, and when."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.node import Place, eventually


@pytest.fixture
def init(place: Place) -> Iterator[socket.socket]:
    """The socket that a node under test tells how it is."""
    path = str(place.directory / "notify")
    place.environ |= {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        made.settimeout(20)
        yield made


def hear_until(init: socket.socket, wanted: str) -> list[str]:
    """All that is said up to and with a line."""
    heard: list[str] = []
    while wanted not in heard:
        heard += init.recv(4096).decode().splitlines()
    return heard


def test_a_node_says_when_it_is_ready_that_it_is_alive_and_that_it_leaves(place: Place, init: socket.socket) -> None:
    (place.directory / "slow.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nfrom jobs import app\n"
    )
    node = place.start(app="slow", is_ready=False)
    heard = hear_until(init, "STATUS=n1-1: starting: no executor is ready")
    assert "READY=1" not in heard
    hear_until(init, "WATCHDOG=1")
    place.open_gate()
    hear_until(init, "READY=1")
    assert node.get("/readyz")[0] == 200
    hear_until(init, "STATUS=ready")
    times = []
    for _ in range(3):
        hear_until(init, "WATCHDOG=1")
        times.append(time.monotonic())
    assert times[2] - times[0] < 2 * 2.0, "the watchdog would have bitten"
    node.send(signal.SIGTERM)
    heard = hear_until(init, "STOPPING=1")
    assert "EXTEND_TIMEOUT_USEC=40000000" in [*heard, *init.recv(4096).decode().splitlines()]
    assert node.wait(10) == 0


def test_a_node_that_is_stopped_gives_no_sign_of_life(place: Place, init: socket.socket) -> None:
    node = place.start()
    hear_until(init, "WATCHDOG=1")
    node.send(signal.SIGSTOP)
    eventually(lambda: psutil.Process(node.process.pid).status() == psutil.STATUS_STOPPED)
    init.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            init.recv(4096)
    init.settimeout(2.5)
    with pytest.raises(TimeoutError):
        init.recv(4096)
    node.send(signal.SIGCONT)
    init.settimeout(20)
    hear_until(init, "WATCHDOG=1")


def test_what_a_node_starts_does_not_speak_for_it(place: Place, init: socket.socket) -> None:
    node = place.start()
    eventually(lambda: node.executors(), hint="executors")
    for pid in node.everything() - {node.process.pid}:
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
