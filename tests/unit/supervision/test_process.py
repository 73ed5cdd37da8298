"""Processes as children: noticed by pidfd, asked to stop, killed at the deadline, never left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from stem_actors.supervision import (
    ChildSpec,
    Crashed,
    ExitedWith,
    Killed,
    Normal,
    ProcessHandle,
    Restart,
    Shutdown,
    StartTimeout,
    process,
)
from tests.unit.supervision.actors import PATIENCE, SOON, Recorder, running

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


class Command:
    """A Python program in a process of its own."""

    def __init__(self, program: str) -> None:
        self.popen = subprocess.Popen([sys.executable, "-I", "-S", "-c", program], stdout=subprocess.PIPE)
        if "print" in program:
            assert self.popen.stdout is not None
            self.popen.stdout.readline()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def poll(self) -> int | None:
        code = self.popen.poll()
        if code is not None and self.popen.stdout is not None:
            self.popen.stdout.close()
        return code

    def request_stop(self) -> None:
        self.popen.terminate()


class Shop:
    """Starts commands and remembers them."""

    def __init__(self, *programs: str) -> None:
        self.programs = list(programs)
        self.started: list[Command] = []

    def __call__(self) -> ProcessHandle:
        program = self.programs[min(len(self.started), len(self.programs) - 1)]
        self.started.append(Command(program))
        return self.started[-1]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="stem.supervision")


def test_a_process_lives_and_stops_on_request(recorder: Recorder) -> None:
    shop = Shop(SLEEP)
    with running(recorder, ChildSpec("p", process(shop))) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.stop(PATIENCE) == Shutdown()
    assert recorder.exits("p") == [Shutdown()]
    assert shop.started[0].popen.returncode == -signal.SIGTERM


def test_a_process_that_does_not_heed_the_request_is_killed_at_the_deadline(recorder: Recorder) -> None:
    shop = Shop(STUBBORN)
    with running(recorder, ChildSpec("p", process(shop), stop_deadline=0.1)) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.stop(PATIENCE) == Shutdown()
    assert recorder.exits("p") == [Killed(signal.SIGKILL)]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", Normal()),
        ("raise SystemExit(3)", ExitedWith(3)),
        ("import os; os.kill(os.getpid(), 11)", Killed(signal.SIGSEGV)),
    ],
)
def test_however_a_process_ends_it_is_noticed_and_replaced(
    recorder: Recorder, program: str, reason: Normal | ExitedWith | Killed
) -> None:
    shop = Shop(program, SLEEP)
    with running(recorder, ChildSpec("p", process(shop), backoff=SOON)) as tree:
        assert recorder.wait_for_exit("p") == reason
        recorder.wait_for_life("p", 2)
        assert tree.statistics().children[0].restarts == {reason.label: 1}


def test_a_process_killed_from_outside_and_by_request_is_replaced(recorder: Recorder) -> None:
    shop = Shop(SLEEP)
    with running(recorder, ChildSpec("p", process(shop), backoff=SOON)) as tree:
        assert tree.wait_started(PATIENCE)
        os.kill(shop.started[0].pid, signal.SIGKILL)
        recorder.wait_for_life("p", 2)
        assert tree.directory.kill("p")
        recorder.wait_for_life("p", 3)
        assert recorder.exits("p") == [Killed(signal.SIGKILL)] * 2


def test_a_command_that_cannot_be_started_is_a_crash(recorder: Recorder) -> None:
    def start() -> ProcessHandle:
        raise FileNotFoundError("no such command")

    with running(recorder, ChildSpec("p", process(start), restart=Restart.TEMPORARY)):
        assert recorder.wait_for_exit("p") == Crashed("FileNotFoundError", "no such command")


def test_an_error_in_its_keeper_leaves_no_process_behind(recorder: Recorder) -> None:
    class Broken(Command):
        def request_stop(self) -> None:
            raise ValueError("request")

    started: list[Broken] = []

    def start() -> ProcessHandle:
        started.append(Broken(SLEEP))
        return started[0]

    with running(recorder, ChildSpec("p", process(start))) as tree:
        assert tree.wait_started(PATIENCE)
        tree.stop(PATIENCE)
    assert recorder.exits("p") == [Crashed("ValueError", "request")]
    assert started[0].popen.returncode == -signal.SIGKILL


def test_a_process_that_starts_too_late_is_stopped_when_it_has_started(recorder: Recorder) -> None:
    go = threading.Event()
    started: list[Command] = []

    def start() -> ProcessHandle:
        assert go.wait(PATIENCE)
        started.append(Command(SLEEP))
        recorder.note("late")
        return started[0]

    late = ChildSpec("p", process(start), restart=Restart.TEMPORARY, start_deadline=0.05)
    with running(recorder, late):
        assert recorder.wait_for_exit("p") == StartTimeout(0.05)
        go.set()
        recorder.wait_for(lambda: "late" in recorder.entries)
        assert started[0].popen.wait(PATIENCE) == -signal.SIGTERM
        started[0].poll()
