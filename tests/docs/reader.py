"""What a reader of a page has: an environment in which our programs are found, and commands that parse."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from stem_actors.config import resolve
from stem_cli.parsers.all import BUILDERS

__all__ = ["check_command", "environ"]

PROGRAMS = Path(sysconfig.get_path("scripts"))


def environ(**more: str) -> dict[str, str]:
    """A reader's environment: our programs are found, no setting is made."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEM_", "PYTEST_"))}
    return {**kept, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "NO_COLOR": "1", "STEM_ADMIN": "127.0.0.1:0", **more}


def check_command(words: list[str], where: str) -> None:
    try:
        parsed = vars(BUILDERS[words[0]]().parse_args(words[1:]))
    except SystemExit as end:
        if end.code == 0:  # --help, --version
            return
        pytest.fail(f"{where}: {' '.join(words)} does not parse")
    resolve({**parsed, "config": None}, {})  # a value that does not fit raises and says so
