"""What a dead executor's tasks left behind: the processes of its session."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil

from stem_actors.executors.vital_signs import MADE_UP

__all__ = ["kill_session"]


def kill_session(session: int, died_at: float) -> int:
    """Kill every process of the session that the executor `session` led, started before it died. Returns how many.

    `died_at` (seconds since the epoch) keeps a process safe that got the dead leader's number later. A session's number
    cannot be given out anew while a process of it lives.
    """
    killed = 0
    if session >= MADE_UP:
        return killed
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).create_time() <= died_at + 1.0:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed
