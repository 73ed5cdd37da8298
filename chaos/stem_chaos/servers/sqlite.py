"""An SQLite database of a run's own: a directory, on a small file system of its own where that is asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["PrivateSqlite"]

_SMALL = "256m"  # of memory, when it is full


class PrivateSqlite:
    """A database in a directory of its own, on a small file system of its own if `is_small` (only root may make one)."""

    def __init__(self, directory: Path, is_small: bool = False) -> None:
        self.directory = directory
        self.path = directory / "stem.db"
        self._is_small = is_small
        self.is_mounted = False
        self.refusal = ""

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def start(self) -> None:
        """Make the directory. A small file system that may not be mounted leaves an ordinary one, and `refusal` says why."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._is_small:
            words = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "stem-chaos", str(self.directory)]
            try:
                mounted = subprocess.run(words, capture_output=True, text=True, check=False)
                self.is_mounted, self.refusal = mounted.returncode == 0, mounted.stderr.strip()
            except OSError as error:
                self.refusal = str(error)

    def close(self) -> None:
        """Give the file system back, and the database with it; what lies in an ordinary directory stays."""
        if self.is_mounted:
            self.is_mounted = False
            subprocess.run(["umount", "--lazy", str(self.directory)], capture_output=True, check=False)
