"""Where runs are kept: one directory each, named by when it began, its suite and its seed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from stem_actors.errors import OperatorError, UsageError

__all__ = ["RUNS", "choose_directory", "make_directory"]

RUNS = "stem-chaos-runs"
"""Below the working directory."""


def choose_directory(named: str | None, suite: str, seed: int) -> Path:
    """The directory of a new run: the one that was named, or one of its own below `RUNS`. Nothing is made yet.

    Raises:
        UsageError: there is something in it.
    """
    if named is None:
        return Path(RUNS, f"{dt.datetime.now():%Y%m%d-%H%M%S}-{suite}-{seed}").absolute()
    path = Path(named).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} is not empty: each run has a directory of its own")
    return path


def make_directory(path: Path) -> None:
    """Make it, with what leads there.

    Raises:
        OperatorError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"the directory {path} cannot be made: {error.strerror}; name another with --directory") from error
