"""What a command's exit code says."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    OK = 0
    NOTHING = 1  # nothing found, or it did not succeed, where a command says so
    NOT_RUNNING = 3
    USAGE = 64  # the command line or the configuration is wrong; nothing was done
    FAILED = 70  # a store is away, or something else went wrong
    PARTIAL = 75  # some of those asked did not answer
    INTERRUPTED = 130
