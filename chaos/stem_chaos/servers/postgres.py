"""A Postgres server of a run's own, with all that Stem leaves to its defaults."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from stem_actors.errors import OperatorError
from stem_chaos.servers.process import ServerProcess

__all__ = ["PrivatePostgres", "as_owner", "give_to_owner", "postgres_program"]

_OWNER = "postgres"


class PrivatePostgres(ServerProcess):
    """A server on a port of its own. It writes before a client hears the answer and never waits for the disk, so that what was
    acknowledged outlives a SIGKILL of all its processes.

    Its data lie in a directory for temporary files, since the server does not run as root and root's directories are not for
    others; its log is in `directory`.
    """

    program = "postgres"
    patience = 60.0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._data: Path | None = None

    def kill(self) -> None:
        """End it and all the processes of its connections by SIGKILL, and wait until they are gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order: whoever is connected is sent away."""
        self._end(signal.SIGINT)

    def freeze(self) -> None:
        """Stop all its processes; connections stay, and nobody answers."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # a session that has ended meanwhile
                process.suspend()

    def thaw(self) -> None:
        for process in reversed(self._processes()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def answers(self) -> bool:
        """Whether it is up and has recovered."""
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self._own_url, autocommit=True) as connection:
            connection.execute("SELECT 1")
            return True
        return False

    def close(self) -> None:
        self.kill()
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None

    @property
    def _own_url(self) -> str:
        return f"postgres://{_OWNER}@127.0.0.1:{self.port}/postgres?connect_timeout=2"

    @property
    def _log(self) -> Path:
        return self.directory / "postgres.log"

    def _processes(self) -> list[psutil.Process]:
        """The server's first process, which starts the others, and they; each is in a session of its own."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _end(self, number: int) -> None:
        processes, process, self._process = self._processes(), self._process, None
        if process is None:
            return
        for each in processes if number == signal.SIGKILL else processes[:1]:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        process.wait(self.patience)
        psutil.wait_procs(processes, self.patience)  # one that is left would keep the next from starting

    def _made_data(self) -> Path:
        if self._data is None:
            place = Path(tempfile.mkdtemp(prefix="stem-chaos-postgres-"))
            give_to_owner(place)
            words = [postgres_program("initdb"), f"--username={_OWNER}", "--auth=trust", "--encoding=UTF8", "--no-locale"]
            made = subprocess.run(
                [*words, "--no-sync", "-D", place],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                **as_owner(),
            )
            if made.returncode:
                shutil.rmtree(place, ignore_errors=True)
                raise OperatorError(f"initdb fails in {place}: {made.stderr.strip() or made.stdout.strip()}")
            self._data = place
        return self._data

    def _run(self, *options: str) -> subprocess.Popen[bytes]:
        data = self._made_data()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "authentication_timeout": "5s",  # its end waits for whoever has connected and, stopped by a fault, says nothing
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [postgres_program("postgres"), "-D", str(data), *words, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the run's terminal is for the run
                **as_owner(),
            )


def postgres_program(name: str) -> str:
    """A program of the server; Debian keeps them off the PATH.

    Raises:
        OperatorError: there is none.
    """
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise OperatorError(f"there is no {name} on the PATH: apt install postgresql, or name a broker's URL")
    return found


def as_owner() -> dict[str, Any]:
    """For a subprocess: who runs the server. It does not run as root, so root has it run by `postgres`.

    Raises:
        OperatorError: there is no such user.
    """
    owner = _owner()
    if owner is None:
        return {}
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": [], "env": environment}


def give_to_owner(place: Path) -> Path:
    """Make a file or folder that of whoever runs the server, and for nobody else to read."""
    place.chmod(0o700 if place.is_dir() else 0o600)
    owner = _owner()
    if owner is not None:
        os.chown(place, owner.pw_uid, owner.pw_gid)
    return place


def _owner() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_OWNER)
    except KeyError:
        raise OperatorError(f"postgres does not run as root, and there is no user {_OWNER} to run it") from None
