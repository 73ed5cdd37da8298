"""Pid files, with processes that live, are dead, and are others than they say."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stem_actors.errors import OperatorError
from stem_cli.pid_file import PidFile, PidFileBroken, ProcessMark
from tests.fixtures.waiting import until


@pytest.fixture
def pid_file(tmp_path: Path) -> PidFile:
    return PidFile(tmp_path / "a.pid")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def mark_of(process: subprocess.Popen[bytes]) -> ProcessMark:
    mark = ProcessMark.of(process.pid)
    assert mark is not None
    return mark


def test_a_file_names_the_process_that_was_written(pid_file: PidFile, sleeper: subprocess.Popen[bytes]) -> None:
    assert pid_file.read() is None
    assert pid_file.running() is None
    pid_file.write(mark_of(sleeper))
    assert pid_file.read() == pid_file.running() == mark_of(sleeper)
    assert pid_file.path.read_text().splitlines()[0] == str(sleeper.pid), "as other tools expect it"
    assert pid_file.path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(pid_file.path.parent) == ["a.pid"]


def test_a_process_that_was_given_the_pid_later_does_not_pass(pid_file: PidFile, sleeper: subprocess.Popen[bytes]) -> None:
    mark = mark_of(sleeper)
    for other in (replace(mark, started=mark.started - 1), replace(mark, boot="0" * 8 + mark.boot[8:])):
        pid_file.write(other)
        assert pid_file.read() == other
        assert pid_file.running() is None
        with other.held() as pidfd:
            assert pidfd is None


def test_a_process_that_is_dead_does_not_run_though_nobody_has_reaped_it(pid_file: PidFile) -> None:
    process = subprocess.Popen(["sleep", "600"])
    mark = mark_of(process)
    pid_file.write(mark)
    process.kill()
    until(lambda: not mark.is_running)
    assert pid_file.running() is None
    assert process.wait() == -signal.SIGKILL
    assert ProcessMark.of(process.pid) is None
    with mark.held() as pidfd:
        assert pidfd is None


def test_a_process_that_is_held_is_signalled_and_no_other(sleeper: subprocess.Popen[bytes]) -> None:
    with mark_of(sleeper).held() as pidfd:
        assert pidfd is not None
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        assert select.select([pidfd], [], [], 10)[0] == [pidfd]
    assert sleeper.wait() == -signal.SIGTERM


def test_a_thread_that_has_the_pid_now_is_no_process(sleeper: subprocess.Popen[bytes]) -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    assert thread.native_id is not None
    with replace(mark_of(sleeper), pid=thread.native_id).held() as pidfd:
        assert pidfd is None
    may_end.set()
    thread.join()


def test_the_age_of_a_process_is_counted_from_its_start(sleeper: subprocess.Popen[bytes]) -> None:
    assert 0 <= mark_of(sleeper).age < 10
    own = ProcessMark.of(os.getpid())
    assert own is not None
    assert own.age >= mark_of(sleeper).age


@pytest.mark.parametrize(
    "text",
    ["", "123", "123\n", "pid\n1 x\n", "0\n1 67c8ae42-9baf-4818-a587-9b033f7560b0\n", "\xff", "1\n2 67c8ae42-9baf-4818-a587-9b0"],
)
def test_what_is_no_pid_file_of_ours_is_said_and_left_alone(pid_file: PidFile, text: str) -> None:
    pid_file.path.write_text(text, encoding="latin-1")
    with pytest.raises(PidFileBroken, match=r"a\.pid"):
        pid_file.read()
    own = ProcessMark.of(os.getpid())
    assert own is not None
    pid_file.remove(own)
    assert pid_file.path.exists()


def test_a_file_is_removed_only_while_it_names_the_process(pid_file: PidFile, sleeper: subprocess.Popen[bytes]) -> None:
    mark, successor = mark_of(sleeper), ProcessMark.of(os.getpid())
    assert successor is not None
    pid_file.write(successor)
    pid_file.remove(mark)
    assert pid_file.read() == successor
    pid_file.remove(successor)
    pid_file.remove(successor)
    assert pid_file.read() is None


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(OperatorError, match="nowhere"):
        PidFile(tmp_path / "nowhere/a.pid").write(mark_of(sleeper))
    with pytest.raises(OperatorError, match="nowhere"), PidFile(tmp_path / "nowhere/a.pid").locked():
        pass


def test_one_at_a_time_changes_what_is_in_a_folder(pid_file: PidFile) -> None:
    other = PidFile(pid_file.path.with_name("b.pid"))
    is_in = threading.Event()

    def enter() -> None:
        with other.locked():
            is_in.set()

    thread = threading.Thread(target=enter)
    with pid_file.locked():
        thread.start()
        descriptor = os.open(pid_file.path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        assert not is_in.is_set()
    thread.join(10)
    assert is_in.is_set()
    assert os.listdir(pid_file.path.parent) == []


def test_who_reads_while_others_write_never_sees_half_a_file(pid_file: PidFile, sleeper: subprocess.Popen[bytes]) -> None:
    marks = {mark_of(sleeper), replace(mark_of(sleeper), started=10**12)}
    has_ended = threading.Event()

    def write() -> None:
        while not has_ended.is_set():
            for mark in marks:
                pid_file.write(mark)

    pid_file.write(mark_of(sleeper))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert {pid_file.read() for _ in range(500)} <= marks
    finally:
        has_ended.set()
        thread.join()
