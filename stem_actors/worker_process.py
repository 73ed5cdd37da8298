"""A worker process as whoever starts it sees it: its pid, its socket, its exit. Used by the node and by embedded workers.

The worker gets its orders as the first frame on a socket pair, never on its command line, where secrets would be seen; what it
reports comes back on the same socket. The socket's end is the worker's end of service: it leaves when this side is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgpack

from stem_actors.errors import ConfigError, OperatorError
from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.interrupts import deaf_to_interrupts
from stem_actors.model.shutdown import ShutdownMode
from stem_actors.model.task import TaskRegistry
from stem_actors.worker_orders import WorkerOrders

__all__ = ["WorkerProcess", "source_of"]

# Until it obeys signals it holds nothing, so Ctrl-C ends it as SIGTERM does, without a word.
_ENTRY = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT}); "
    "from stem_actors.worker import main; main()"
)
_USAGE = 64


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process. `poll` and `request_stop` are what a supervisor needs; the rest is for one reading thread."""

    worker_id: str
    popen: subprocess.Popen[bytes]
    sock: socket.socket
    _unpacker: msgpack.Unpacker = field(default_factory=lambda: msgpack.Unpacker(strict_map_key=False, timestamp=3))

    @classmethod
    def start(cls, orders: WorkerOrders) -> WorkerProcess:
        """Start a worker in a new Python process, with the settings in its environment for the application to read."""
        ours, theirs = socket.socketpair()
        environment = os.environ | orders.settings.as_environ()
        environment["PYTHONPATH"] = _import_path()
        with deaf_to_interrupts():
            popen = subprocess.Popen(
                # -P: the working directory holds the user's modules, one of which may be called like one of Python's.
                [sys.executable, "-P", "-c", _ENTRY, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        theirs.close()
        with contextlib.suppress(OSError):  # it died at once: its exit tells
            ours.sendall(msgpack.packb(orders.to_wire()))
        return cls(orders.worker_id, popen, ours)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def poll(self) -> int | None:
        return self.popen.poll()

    def request_stop(self) -> None:
        self.shut_down(ShutdownMode.WARM)

    def shut_down(self, mode: ShutdownMode) -> None:
        """Ask it to leave, in this mode."""
        self._send("shutdown", int(mode))

    def kill_actor(self, child_id: str) -> None:
        self._send("kill_actor", child_id)

    def frames(self) -> Iterator[list[Any]]:
        """The frames of one read. Raises `EOFError` when the worker closed its end."""
        try:
            data = self.sock.recv(262_144)
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        self._unpacker.feed(data)
        yield from self._unpacker

    def wait_ready(self, timeout: float) -> None:
        """Read until the worker reports that it is ready.

        Raises:
            ConfigError: the application cannot be used, with the reason.
            OperatorError: it ended or did not get ready in time.
        """
        deadline = time.monotonic() + timeout
        reasons: Sequence[str] = ()
        fatal = ""
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.sock], [], [], left)[0]:
                break
            try:
                for frame in self.frames():
                    match frame:
                        case ["status", reasons, *_] if not reasons:
                            return
                        case ["fatal", str(fatal)]:
                            pass
            except EOFError:
                code = self.popen.wait(timeout=10)
                if code == _USAGE:
                    raise ConfigError(fatal or "the worker refused its settings") from None
                raise OperatorError(f"the worker ended with code {code} before it was ready: {fatal or 'see its log'}") from None
        raise OperatorError(f"the worker is not ready after {timeout:g} s: {'; '.join(reasons) or 'it reports nothing'}")

    def leave(self, timeout: float) -> None:
        """Let it drain and wait for its end; kill it at the deadline."""
        self.shut_down(ShutdownMode.WARM)
        try:
            self._discard_until_end(timeout)
        finally:
            if self.popen.poll() is None:
                self.popen.kill()
            self.popen.wait()
            self.sock.close()

    def _discard_until_end(self, timeout: float) -> None:
        """Go on reading, or the worker would wait for its reports to be read."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                if select.select([self.sock], [], [], left)[0] and not self.sock.recv(262_144):
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(max(0.1, deadline - time.monotonic()))

    def _send(self, *frame: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone: its exit tells
            self.sock.sendall(msgpack.packb(frame))


def _import_path() -> str:
    """Let the new process find what this one finds, in a source tree too, without its own directory ahead of all."""
    return os.pathsep.join(dict.fromkeys(entry for entry in sys.path if entry))


class HasRegistry(Protocol):
    """An application, as far as its tasks go."""

    @property
    def registry(self) -> TaskRegistry: ...


def source_of(app: HasRegistry) -> ApplicationSource:
    """Where another process finds an application that lives in this one.

    Raises:
        ConfigError: it is no module's variable, so nobody could import it.
    """
    modules = {task.function.__module__ for task in app.registry}
    named = [
        (name, attribute)
        for name, module in list(sys.modules.items())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is app
    ]
    if not named:
        raise ConfigError(
            "app.worker() runs tasks in other processes, which import the application: keep it in a variable of a module, "
            "such as `app = Stem()` at the top of the file."
        )
    main = next((attribute for name, attribute in named if name == "__main__"), None)
    others = sorted(modules - {"__main__", "__mp_main__"})
    if main is not None:
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise ConfigError("an application of an interactive session cannot be imported by its executors; put it in a file.")
        return ApplicationSource(f"__main__:{main}", str(Path(script).resolve()), others, os.getcwd())
    module, attribute = next((each for each in named if each[0] in modules), named[0])
    return ApplicationSource(f"{module}:{attribute}", None, others, os.getcwd())
