from __future__ import annotations

import socket
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import cast

import msgpack
import pytest

from stem_actors.executors.frames import EndKind, FromExecutor
from stem_actors.executors.process import ExecutorProcess


@pytest.fixture
def ends() -> Iterator[tuple[ExecutorProcess, socket.socket]]:
    """The worker's side of an executor to which two claims were handed, and the socket's other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process = ExecutorProcess(cast(BaseProcess, None), ours, -1, -1, -1, handed={1: None, 2: None})
    yield process, theirs
    process.close()
    theirs.close()


def ended(claim: int) -> bytes:
    frame: bytes = msgpack.packb((int(FromExecutor.ENDED), claim, int(EndKind.RETURNED), b"", 1.0, 0.1))
    return frame


def test_nothing_is_received_while_nothing_has_arrived(ends: tuple[ExecutorProcess, socket.socket]) -> None:
    process, theirs = ends
    theirs.sendall(ended(1)[:-3])
    assert [*process.receive(), *process.receive()] == []


def test_what_has_ended_is_not_inside_any_more(ends: tuple[ExecutorProcess, socket.socket]) -> None:
    process, theirs = ends
    theirs.sendall(ended(2))
    assert [frame[1] for frame in process.receive()] == [2]
    assert list(process.handed) == [1]


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x07", b"\x90"])
def test_of_a_garbled_stream_the_beginning_counts_and_then_it_has_ended(
    ends: tuple[ExecutorProcess, socket.socket], garbage: bytes
) -> None:
    process, theirs = ends
    theirs.sendall(ended(1) + garbage + ended(2))
    assert [frame[1] for frame in process.receive()] == [1]
    with pytest.raises(EOFError):
        process.receive()
    assert list(process.handed) == [2]


def test_a_dead_executors_last_words_are_read_to_the_end(ends: tuple[ExecutorProcess, socket.socket]) -> None:
    process, theirs = ends
    theirs.sendall(ended(1) + ended(2))
    theirs.close()
    assert [frame[1] for frame in process.drain()] == [1, 2]
    with pytest.raises(EOFError):
        process.receive()
