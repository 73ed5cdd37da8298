"""What a worker's forkserver imports before it forks executors: their code, shared by all of them, and a death wish.

The forkserver would outlive a killed worker and keep its executors alive. So it dies with the worker's main thread, and each
executor dies with the forkserver (`child.die_with_parent`). Errors in a preloaded module are swallowed by multiprocessing; an
executor therefore says `READY` before it is given anything.

A signal to the node's whole process group is for the node and its workers: the forkserver leaves that group, or it would be ended
by the signal, and all executors with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal

from stem_actors.executors import child

child.die_with_parent()
with contextlib.suppress(PermissionError):  # it leads a session
    os.setpgid(0, 0)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as it does when it has come up, and what came before that with it
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
gc.freeze()  # what is loaded by now stays shared between the executors instead of being copied by their collectors
