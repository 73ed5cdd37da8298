"""What a person sees of a run while it goes on: a line on the terminal that changes, elsewhere one for each stage."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from stem_actors.config import masked_url
from stem_chaos.runner import Orders, Progress
from stem_cli.output import readable_duration

if TYPE_CHECKING:
    from stem_cli.output import Output
    from stem_cli.output import Progress as Bar

__all__ = ["Watch"]


class Watch:
    """Tells how far a run is; for the time of a block. Its first words are the seed and the directory."""

    def __init__(self, output: Output, orders: Orders) -> None:
        self._output = output
        self._orders = orders
        self._stage = ""
        self._shown = 0
        self._stack = ExitStack()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        orders = self._orders
        where = orders.place.named or f"a {orders.place.broker} broker of its own"
        self._output.message(
            f"suite {orders.suite.name} on {masked_url(where)}, seed {orders.seed}, history in {orders.directory}"
        )
        load = orders.suite.load
        self._bar = self._stack.enter_context(self._output.progress("starting", round(load)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def __call__(self, progress: Progress) -> None:
        assert self._bar is not None
        text = _text(progress)
        if sys.stderr.isatty() and not self._output.as_json:
            self._bar.say(text)
            done = min(round(progress.elapsed), round(progress.total))
            self._bar.advance(max(0, done - self._shown))
            self._shown = max(self._shown, done)
        elif progress.stage != self._stage:
            self._output.message(text)
        self._stage = progress.stage


def _text(progress: Progress) -> str:
    if not progress.total:
        return progress.stage
    calls = progress.calls
    counted = [f"{calls.accepted:,} enqueued"]
    counted += [f"{calls.refused:,} refused"] if calls.refused else []
    counted += [f"{calls.unknown:,} unknown"] if calls.unknown else []
    counted += [f"{progress.ended:,} ended", f"{progress.faults:,} faults"]
    return f"{progress.stage}: {readable_duration(progress.elapsed)}, {', '.join(counted)}"
