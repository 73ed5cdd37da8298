"""`Middleware`, and how a list of them is called: each around the next, the first outermost.

Each function has the shape `(run, call_next) -> result`. It calls `call_next(run)` once, may change what goes in and what comes
out, and sees an error as what `call_next` raises. What a run is, is the caller's business: a `Call` where tasks are enqueued,
a `TaskContext` where they are executed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from stem_actors.errors import MiddlewareError

__all__ = ["AroundAsync", "AroundSync", "Middleware", "call_through", "call_through_async"]

T = TypeVar("T")
R = TypeVar("R")

AroundSync: TypeAlias = Callable[[Any, Callable[[Any], Any]], Any]
AroundAsync: TypeAlias = Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Middleware:
    """What goes around tasks; each part may be left out.

    `enqueue`   around enqueueing, in the producer: `(call, call_next) -> id`
    `execute`   around running a sync task, in the executor: `(run, call_next) -> result`
    `aexecute`  the same as a coroutine function, around `async def` tasks: a plain function cannot wait for one to end
    """

    enqueue: AroundSync | None = None
    execute: AroundSync | None = None
    aexecute: AroundAsync | None = None


def call_through(functions: Sequence[AroundSync], run: T, innermost: Callable[[T], R], what: str) -> R:
    """Call `innermost(run)` through all `functions`. `what` names that in errors, such as "run the task".

    Raises:
        MiddlewareError: one did not call the next, or did so twice.
    """
    once = _Once(innermost, what)
    call: Callable[[Any], Any] = once
    for function in reversed(functions):
        call = partial(_call, function, call)
    result: R = call(run)
    once.check()
    return result


async def call_through_async(functions: Sequence[AroundAsync], run: T, innermost: Callable[[T], Awaitable[R]], what: str) -> R:
    """Like `call_through`, for coroutine functions."""
    once = _Once(innermost, what)
    call: Callable[[Any], Awaitable[Any]] = once
    for function in reversed(functions):
        call = partial(_call, function, call)
    result: R = await call(run)
    once.check()
    return result


def _call(function: Callable[[Any, Any], R], call_next: Callable[[Any], Any], run: Any) -> R:
    return function(run, call_next)


class _Once:
    """What the last of them calls, and whether it did."""

    __slots__ = ("_innermost", "_was_called", "_what")

    def __init__(self, innermost: Callable[[Any], Any], what: str) -> None:
        self._innermost = innermost
        self._what = what
        self._was_called = False

    def __call__(self, run: Any) -> Any:
        if self._was_called:
            raise MiddlewareError(f"middleware tried to {self._what} twice: each may call the next but once")
        self._was_called = True
        return self._innermost(run)

    def check(self) -> None:
        if not self._was_called:
            raise MiddlewareError(f"middleware did not {self._what}: it must call the next, or raise an error")
