"""`ServerProcess`: what the servers of a run have in common. Each is a process on a port of its own, which it keeps."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from stem_actors.errors import OperatorError
from stem_chaos.link import Address, free_port
from stem_chaos.waiting import within

__all__ = ["ServerProcess"]

_TRIES = 5


class ServerProcess(ABC):
    """A server that can be killed and started again. `program` is its name, `patience` the seconds it has to start or end."""

    program: ClassVar[str]
    patience: ClassVar[float]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return None if self._process is None else self._process.pid

    def start(self, *options: str) -> None:
        """Start it and wait until it has read its data. It keeps its port.

        Raises:
            OperatorError: there is no program, or it does not start.
        """
        if self._process is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            is_new = not self.port
            if is_new:
                self.port = free_port()
            self._process = self._run(*options)
            if within(self.patience, lambda: self.answers() or self._has_ended()) and not self._has_ended():
                return
            self.kill()
            if not is_new:
                break
            self.port = 0  # somebody else may have taken it
        raise OperatorError(f"{self.program} does not start; see {self._log}")

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is up and has read its data."""

    @abstractmethod
    def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""

    @abstractmethod
    def _run(self, *options: str) -> subprocess.Popen[bytes]:
        """Start its process on `port`."""

    @property
    @abstractmethod
    def _log(self) -> Path: ...

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None
