"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import os
import select
import signal
import sys

from stem_actors.errors import UsageError

__all__ = ["confirm"]


def confirm(intent: str, is_told: bool) -> None:
    """Return when the command line said `--yes`, or a person at the terminal does. `intent` as in "remove 3 tasks for good".

    Raises:
        UsageError: not told, and nobody to ask or the answer is no; nothing was done.
    """
    if is_told:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this would {intent}; say --yes (-y) to do it, since there is no terminal to ask on")
    print(f"{intent[0].upper()}{intent[1:]}? [y/N] ", end="", file=sys.stderr, flush=True)
    _await_key_or_signal()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not confirmed; nothing was changed")


def _await_key_or_signal() -> None:
    """Until there is something to read. Ctrl-C ends it at any moment; a `read` would not hear of one that came just before."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = signal.set_wakeup_fd(theirs)
    try:
        select.select([sys.stdin, ours], [], [])
    finally:
        signal.set_wakeup_fd(before)
        os.close(ours)
        os.close(theirs)
