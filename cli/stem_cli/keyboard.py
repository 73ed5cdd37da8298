"""Single keys of a terminal, as they are pressed."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from functools import partial

__all__ = ["keys_of_terminal"]


@contextlib.contextmanager
def keys_of_terminal() -> Iterator[Callable[[float], str | None]]:
    """While inside, a function that waits so many seconds for a key: the key, None when none came, "" when there will be none.

    Keys are not shown meanwhile, and Ctrl-Z does nothing: it would leave the shell with a screen that is not its own. Ctrl-C does
    what it always does. Where stdin is no terminal, the function only waits.
    """
    if not sys.stdin.isatty():
        yield time.sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        quiet = termios.tcgetattr(fd)
        quiet[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
        yield partial(_key, fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _key(fd: int, seconds: float) -> str | None:
    if not select.select([fd], [], [], max(0.0, seconds))[0]:
        return None
    return os.read(fd, 1).decode("ascii", "replace")
