from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stem_actors.errors import MiddlewareError
from stem_actors.middleware.chain import AroundSync, call_through, call_through_async

CallNext = Callable[[Any], Any]


def noting(word: str) -> AroundSync:
    def note(run: list[str], call_next: CallNext) -> str:
        return f"{word}({call_next([*run, word])})"

    return note


def test_the_first_is_the_outermost() -> None:
    assert call_through([noting("a"), noting("b")], ["run"], "-".join, "run it") == "a(b(run-a-b))"


def test_an_error_is_seen_as_what_the_next_raises() -> None:
    def calm(run: int, call_next: CallNext) -> str:
        try:
            return str(call_next(run))
        except ZeroDivisionError:
            return "calmed"

    def innermost(run: int) -> str:
        return str(1 / run)

    assert call_through([calm], 0, innermost, "run it") == "calmed"


def test_one_that_does_not_call_the_next_is_an_error() -> None:
    with pytest.raises(MiddlewareError, match="middleware did not run it"):
        call_through([lambda run, call_next: 1], 0, str, "run it")


def test_one_that_calls_the_next_twice_is_an_error() -> None:
    with pytest.raises(MiddlewareError, match="run it twice"):
        call_through([lambda run, call_next: call_next(run) + call_next(run)], 0, str, "run it")


def test_coroutine_functions_go_around_coroutines() -> None:
    async def twice(run: int, call_next: Callable[[int], Awaitable[int]]) -> int:
        return 2 * await call_next(run)

    async def forget(run: int, call_next: Callable[[int], Awaitable[int]]) -> int:
        return run

    async def innermost(run: int) -> int:
        await asyncio.sleep(0)
        return run + 1

    assert asyncio.run(call_through_async([twice], 1, innermost, "run it")) == 4
    with pytest.raises(MiddlewareError, match="did not run it"):
        asyncio.run(call_through_async([forget], 1, innermost, "run it"))
