"""A `redis-server` of a run's own, or a pair of them of which one takes over from the other."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from stem_actors.errors import OperatorError
from stem_chaos.link import Address, Proxy
from stem_chaos.servers.process import ServerProcess
from stem_chaos.waiting import within

__all__ = ["PrivateRedis", "RedisPair", "redis_program"]

_PATIENCE = 20.0
_OLDEST = 7


class PrivateRedis(ServerProcess):
    """A `redis-server` process on a port of its own, with an append-only file.

    The file is written before a client hears the answer and never waits for the disk, so that what was acknowledged outlives a
    SIGKILL. (With `everysec` a write may wait for a disk's flush, and its client is answered all the same.)
    """

    program = "redis-server"
    patience = _PATIENCE

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self._options = options

    def kill(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether it is up and has read its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def command(self, *words: Any) -> Any:
        """Ask it directly, past every link."""
        import redis

        with redis.Redis(port=self.port, protocol=2, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*words)

    def close(self) -> None:
        self.kill()

    @property
    def _log(self) -> Path:
        return self.directory / "redis.log"

    def _end(self, number: int) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(number)
            process.wait(_PATIENCE)

    def _run(self, *options: str) -> subprocess.Popen[bytes]:
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--logfile", str(self._log)]
        words += ["--daemonize", "no", "--save", "", "--appendonly", "yes", "--appendfsync", "no", *self._options, *options]
        return subprocess.Popen(
            [redis_program(), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the run's terminal is for the run
        )


class RedisPair:
    """A primary and its replica on this machine, with a link between them that can be cut off; the replica can take over."""

    def __init__(self, directory: Path) -> None:
        fast = ("--repl-diskless-sync-delay", "0")
        self.primary = PrivateRedis(directory / "a", *fast)
        self.replica = PrivateRedis(directory / "b", *fast)
        self._replication: Proxy | None = None

    @property
    def address(self) -> Address:
        return self.primary.address

    def start(self) -> None:
        self.primary.start()
        self._replication = Proxy(self.primary.address)
        self._follow()

    def hold_replication(self) -> None:
        """From now on the replica hears nothing new, and the primary does not know why."""
        assert self._replication is not None
        self._replication.blackhole()

    def fail_over(self) -> None:
        """Make the replica the primary, with what it has; whoever uses them has to be led to it. The old one is killed.

        What the old one had acknowledged and the replica had not heard is lost.
        """
        assert self._replication is not None
        self._replication.cut()
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.primary.kill()
        self.primary, self.replica = self.replica, self.primary

    def rejoin(self) -> None:
        """Start the old primary as a replica of the new one, with whose data it begins anew; wait until it has them."""
        assert self._replication is not None
        self._replication.retarget(self.primary.address)
        self._replication.heal()
        self._follow()

    def close(self) -> None:
        self.replica.close()
        self.primary.close()
        if self._replication is not None:
            self._replication.close()
            self._replication = None

    def _follow(self) -> None:
        assert self._replication is not None
        self.replica.start("--replicaof", f"127.0.0.1 {self._replication.port}")
        if not within(_PATIENCE, self._is_in_step):
            raise OperatorError(f"the replica does not get in step with its primary; see {self.replica.directory}")

    def _is_in_step(self) -> bool:
        return bool(self.replica.command("INFO", "replication").get("master_link_status") == "up")


@cache
def redis_program() -> str:
    """A server program that is new enough.

    Raises:
        OperatorError: there is none.
    """
    for found in filter(None, map(shutil.which, ("redis-server", "valkey-server"))):
        output = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"v=(\d+)", output)
        if version is not None and int(version[1]) >= _OLDEST:
            return found
    raise OperatorError(
        f"there is no redis-server {_OLDEST} or newer on the PATH: apt install redis-server, or name a broker's URL"
    )
