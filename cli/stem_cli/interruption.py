"""Ctrl-C between the steps of a long change, so that what was done can be counted and told."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruption"]


class Interruption:
    """For the time of a block, from `hold` on, Ctrl-C is noted instead of tearing a step that a store may already have made.

    Look at `is_asked` after each step. Somebody who asks again does not want to wait for the step's end: KeyboardInterrupt, as
    before `hold`. The block ends after what was done has been told. For the main thread only, as signals are.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_held = False
        self._before: Any = signal.SIG_DFL

    def hold(self) -> None:
        """The first step begins."""
        self._is_held = True

    def __enter__(self) -> Interruption:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked or not self._is_held:
            raise KeyboardInterrupt
        self.is_asked = True
