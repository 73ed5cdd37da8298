"""The frames between a worker and an executor: msgpack arrays that start with a kind, in a plain stream over a socket pair.

Beside the socket runs the *claim pipe*, one byte per task. The executor reads a task's byte before it starts the task; the
worker takes work back by reading the bytes itself. The kernel gives each byte to one of them, so a task is either started or
taken back, and nobody has to ask an executor that is busy, stopped or deaf.

A byte's value is the *generation*: how often the worker has taken work back from this executor, modulo 256. The worker writes
`FORGET` before the first byte of a new generation, so an executor that reads such a byte knows that it must first read on in the
socket and forget what it had not started. Work is always written to the socket before its byte is written to the pipe.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

__all__ = ["ENDED", "RETURNED", "EndKind", "Frame", "FromExecutor", "Handed", "InterruptKind", "ToExecutor", "next_generation"]


class ToExecutor(IntEnum):
    RUN = 0  # [RUN, [Handed, …]]
    FORGET = 1  # [FORGET, generation]
    INTERRUPT = 2  # [INTERRUPT, claim, InterruptKind, reason]
    STOP = 3  # [STOP]: leave when nothing runs
    REPLY = 4  # [REPLY, number, [error class, text] or None, packed answer]: what an ERRAND came to


class FromExecutor(IntEnum):
    READY = 0  # [READY, catalogue]
    UNUSABLE = 1  # [UNUSABLE, exit code, text]: the application cannot be loaded
    STARTED = 2  # [STARTED, claim]: only for runs that asked for it
    ENDED = 3  # [ENDED, claim, EndKind, detail, started_at, seconds]; started_at 0: it was not
    PROGRESS = 4  # [PROGRESS, claim, percent, data]
    EXTEND = 5  # [EXTEND, claim]: the task asks for its lease to be renewed now
    ERRAND = 6  # [ERRAND, number, Errand, payload]: something to be done at the broker; answered by REPLY


class EndKind(IntEnum):
    """How a run ended; the detail that goes with it."""

    RETURNED = 0  # the result, encoded; None when it is ignored
    RAISED = 1  # [type, message, stack, retryable]
    ASKED_RETRY = 2  # [type, message, stack, delay or None, overrides]
    INTERRUPTED = 3  # InterruptKind
    NOT_STARTED = 4  # None: its lease had run out before it could start
    UNREGISTERED = 5  # None
    UNREADABLE = 6  # [type, message]: the body cannot be decoded here


# Looked at for every task; a look into an Enum takes ten times as long as one at a name of the module.
ENDED = int(FromExecutor.ENDED)
RETURNED = int(EndKind.RETURNED)


class InterruptKind(IntEnum):
    SOFT_LIMIT = 0
    REVOKED = 1
    RELEASED = 2


class Handed(NamedTuple):
    """One task on its way into an executor.

    `deadline`    the lease's end on `Clock.monotonic()`; nothing is started after it
    `hard_limit`  what `TaskContext.deadline` is worked out from; the worker enforces it
    `announce`    report `STARTED`, from which the worker counts limits
    """

    claim: int
    body: bytes
    attempt: int
    deadline: float
    hard_limit: float | None
    announce: bool
    ignore_result: bool
    max_result_bytes: int


def next_generation(generation: int) -> int:
    return (generation + 1) % 256


Frame = list[Any]
