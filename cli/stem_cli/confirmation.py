"""Asking before something is done that cannot be undone."""

from __future__ import annotations

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
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not confirmed; nothing was changed")
