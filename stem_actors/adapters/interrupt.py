"""How a thread that waits in `poll` is told by another to stop waiting."""

from __future__ import annotations

import os
import threading

__all__ = ["Interrupt"]


class Interrupt:
    """A pipe that the waiting thread registers with its `poll`, beside what it waits for. `send` is for any thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._close_lock = threading.Lock()
        self._is_closed = False

    def fileno(self) -> int:
        return self._reader

    def send(self) -> None:
        """Make the wait under way, or the next one, return at once."""
        with self._close_lock:
            if not self._is_closed:
                try:
                    os.write(self._writer, b"!")
                except BlockingIOError:
                    pass  # full of interrupts

    def take(self) -> bool:
        """Whether there was an interrupt since this was last asked."""
        if self._is_closed:
            return False  # the number may be another file's by now
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Idempotent; not while another thread waits."""
        with self._close_lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._reader)
                os.close(self._writer)
