"""Pid files: which process a node is, told so that another process with its pid does not pass for it.

The first line is the pid, as other tools expect it. The second says when that process was started: in clock ticks since the
host was, and which start of the host that was. A file is replaced as a whole, so nobody reads half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stem_actors.errors import OperatorError

__all__ = ["PidFile", "PidFileBroken", "ProcessMark"]

_FORM = re.compile(r"([1-9][0-9]{0,9})\n([0-9]+) ([0-9a-f-]{36})\n")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PidFileBroken(OperatorError):
    """There is a file, and it is no pid file of ours."""


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process, and no other that ever ran here: its pid, and when it was started."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The process that has this pid now; None when nobody has, or one that is dead and only not yet reaped."""
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else cls(pid, int(fields[18]), _BOOT_ID.read_text().strip())

    @property
    def is_running(self) -> bool:
        return ProcessMark.of(self.pid) == self

    @property
    def age(self) -> float:
        """Seconds since its start; for one that is running."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK"))

    @contextmanager
    def held(self) -> Iterator[int | None]:
        """A pidfd of it for the time of a block: what is sent there reaches nobody else. None when it is gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:  # nobody has the pid, or it is a thread's now
            yield None
            return
        try:
            yield pidfd if self.is_running else None
        finally:
            os.close(pidfd)


@dataclass(frozen=True, slots=True)
class PidFile:
    """The file at `path`. Whoever looks and then writes does so while it is `locked`."""

    path: Path

    def read(self) -> ProcessMark | None:
        """The process it names, alive or not; None when there is no file.

        Raises:
            PidFileBroken: it is no pid file, or cannot be read.
        """
        try:
            text = self.path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise PidFileBroken(f"the pid file {self.path} cannot be read: {error}") from error
        found = _FORM.fullmatch(text)
        if found is None:
            raise PidFileBroken(
                f"{self.path} is no pid file of Stem's: it holds no pid with the time of its start. "
                "See whether a node runs, and remove the file if none does."
            )
        return ProcessMark(int(found[1]), int(found[2]), found[3])

    def running(self) -> ProcessMark | None:
        """The process it names, if that is alive."""
        mark = self.read()
        return mark if mark is not None and mark.is_running else None

    def write(self, mark: ProcessMark) -> None:
        """Replace the file.

        Raises:
            OperatorError: it cannot be written.
        """
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(f"{mark.pid}\n{mark.started} {mark.boot}\n")
                    os.fchmod(descriptor, 0o644)
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise OperatorError(f"the pid file {self.path} cannot be written: {error.strerror or error}") from error

    def remove(self, mark: ProcessMark) -> None:
        """Remove the file if it still names this process.

        Raises:
            OperatorError: it cannot be removed.
        """
        with self.locked(), contextlib.suppress(PidFileBroken):
            if self.read() != mark:
                return
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise OperatorError(f"the pid file {self.path} cannot be removed: {error.strerror}") from error

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let the file name this process for the time of a block.

        Raises:
            OperatorError: it names another one that is alive, or cannot be written.
        """
        own = ProcessMark.of(os.getpid())
        assert own is not None
        with self.locked():
            found = self.running()
            if found is not None and found != own:
                raise OperatorError(
                    f"{self.path} says that process {found.pid} runs already: stop it, or choose another --pidfile"
                )
            self.write(own)
        try:
            yield
        finally:
            with contextlib.suppress(OperatorError):
                self.remove(own)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing pid files of this folder for the time of a block. A lock on the folder leaves nothing behind.

        Raises:
            OperatorError: there is no such folder, or it cannot be opened.
        """
        try:
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise OperatorError(f"the folder {self.path.parent} of a pid file cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
