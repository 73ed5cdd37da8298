from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from stem_actors.executors.channel import Channel, WorkerGone
from stem_actors.executors.frames import Handed, InterruptKind, ToExecutor


class Worker:
    """The other ends of a channel's pipes, which write whatever a test likes."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        reader, self.claims = os.pipe()
        self.channel = Channel(theirs, reader)

    def send(self, *frames: Any) -> None:
        """Write all frames at once, so that one read finds them all."""
        self.sock.sendall(b"".join(msgpack.packb(frame) for frame in frames))

    def bytes(self, *generations: int) -> None:
        os.write(self.claims, bytes(generations))

    def close(self) -> None:
        self.sock.close()
        if self.claims >= 0:
            os.close(self.claims)
        self.claims = -1


def run(*claims: int) -> list[Any]:
    return [ToExecutor.RUN, [Handed(claim, b"body", 0, 1.0, None, False, False, 100) for claim in claims]]


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.channel.close()
    worker.close()


def test_tasks_are_claimed_in_the_order_they_were_handed_over(worker: Worker) -> None:
    worker.send(run(1, 2), run(3))
    worker.bytes(0, 0, 0)
    assert [worker.channel.claim().claim for _ in range(3)] == [1, 2, 3]


def test_what_was_taken_back_is_forgotten_before_the_next_claim(worker: Worker) -> None:
    worker.send(run(1, 2, 3))
    worker.bytes(0)
    assert worker.channel.claim().claim == 1
    worker.send([ToExecutor.FORGET, 1], run(4))
    worker.bytes(1)
    assert worker.channel.claim().claim == 4


def test_a_claim_is_good_although_the_worker_has_taken_back_twice_since_the_last_look(worker: Worker) -> None:
    """One read finds its task, then that what followed was taken back, then new work."""
    worker.send(run(1, 2))
    worker.bytes(0)
    assert worker.channel.claim().claim == 1  # 2 waits, and is taken back unseen
    worker.send([ToExecutor.FORGET, 1], run(3, 4, 5), [ToExecutor.FORGET, 2], run(6))
    worker.bytes(1, 2)
    assert worker.channel.claim().claim == 3
    assert worker.channel.claim().claim == 6


def test_frames_behind_a_claimed_task_are_not_lost(worker: Worker) -> None:
    worker.send(run(1, 2))
    worker.bytes(0)
    assert worker.channel.claim().claim == 1
    worker.send([ToExecutor.FORGET, 1], run(3), [ToExecutor.INTERRUPT, 3, InterruptKind.REVOKED, "why"], [ToExecutor.STOP])
    worker.bytes(1)
    assert worker.channel.claim().claim == 3
    assert worker.channel.interrupts == {}
    worker.channel.read(block=False)
    assert worker.channel.interrupts == {3: (InterruptKind.REVOKED, "why")}
    assert worker.channel.cancelled == {3}
    assert worker.channel.is_stopping
    with pytest.raises(WorkerGone):
        worker.channel.claim()


def test_a_frame_may_come_in_pieces(worker: Worker) -> None:
    raw = msgpack.packb(run(1))
    worker.sock.sendall(raw[:3])
    worker.channel.read(block=True)
    assert not worker.channel.waiting
    worker.sock.sendall(raw[3:])
    worker.bytes(0)
    assert worker.channel.claim().claim == 1


def test_a_claim_that_must_not_wait_does_not(worker: Worker) -> None:
    os.set_blocking(worker.channel.claims_fd, False)
    assert worker.channel.try_claim() is None
    worker.send(run(1))
    worker.bytes(0)
    claimed = worker.channel.try_claim()
    assert claimed is not None
    assert claimed.claim == 1


def test_a_worker_that_is_gone_is_noticed(worker: Worker) -> None:
    worker.close()
    for call in (worker.channel.claim, lambda: worker.channel.read(block=False), lambda: worker.channel.send(0)):  # type: ignore[arg-type]
        with pytest.raises(WorkerGone):
            call()


def test_what_came_too_late_for_its_claim_is_dropped(worker: Worker) -> None:
    worker.send(run(5), *[[ToExecutor.INTERRUPT, claim, InterruptKind.REVOKED, None] for claim in (1, 2, 5)])
    worker.channel.read(block=True)
    worker.channel.forget_others(2)
    assert set(worker.channel.interrupts) == worker.channel.cancelled == {2, 5}
    worker.channel.forget(2)
    assert set(worker.channel.interrupts) == worker.channel.cancelled == {5}
