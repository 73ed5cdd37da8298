"""Connections to one Redis server: opened, named, reused, given up; commands and scripts; errors turned into ours.

A connection belongs to one caller for one exchange. Nothing that writes is sent twice from here: whoever repeats, repeats
something that is numbered or fenced. What reads is sent once more when its connection was lost. Every wait for the server has an
end.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stem_actors.adapters.interrupt import Interrupt
from stem_actors.adapters.redis import tls
from stem_actors.adapters.redis.keys import expected_types
from stem_actors.clock import Clock, SystemClock
from stem_actors.errors import BrokerUnavailable, ConfigError, OperatorError, StorageBroken, StorageFull

if TYPE_CHECKING:
    from stem_actors.adapters.redis.endpoint import Endpoint

__all__ = ["Call", "Listener", "Script", "Server"]

_logger = logging.getLogger("stem.redis")

READING = frozenset(
    ("EXISTS", "GET", "HGETALL", "HMGET", "MGET", "SMEMBERS", "TIME", "XRANGE", "XREVRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE")
)
"""Those of our commands that change nothing."""

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 5.0
"""Seconds for one exchange. What blocks longer on our side listens on a subscription instead of asking."""
IDLE_CHECK = 1.0
"""A connection unused for longer is looked at before it is used again: the server may have closed it."""
FORGET_AFTER = 60.0
"""Seconds after which a connection nobody uses is closed."""
CLOCK_CHECK = 10.0
"""Seconds between two comparisons of the server's clock with ours."""
BLURRED = 0.05
"""Seconds after which an answer to something else says too little of the server's clock."""
OLDEST_SERVER = (7, 0)
TRIES = 4
"""Of a script: the server may have forgotten it, and several keys may be of a wrong type."""


# ---------------------------------------------------------------- scripts


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file, known to the server by its digest."""

    name: str
    source: str
    digest: str

    @property
    def changes_nothing(self) -> bool:
        """It says so, and the server holds it to that."""
        return "no-writes" in self.source.partition("\n")[0]

    @staticmethod
    @cache
    def named(name: str) -> Script:
        folder = Path(__file__).parent / "scripts"
        own = (folder / f"{name}.lua").read_text(encoding="utf-8")
        first, _, rest = own.partition("\n")
        flags, rest = (first, rest) if first.startswith("#!") else ("#!lua", own)
        common = _needed((folder / "common.lua").read_text(encoding="utf-8"), rest)
        source = f"{flags}\n{common}\n\n{rest}"
        return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def _needed(common: str, source: str) -> str:
    """Of the functions in `common` those that `source` leads to: each run of a script makes anew all that stand in it."""
    parts = [part for part in common.split("\n\n") if _DEFINES.search(part)]
    needed: list[str] = []
    for part in reversed(parts):  # what a function uses stands above it
        match = _DEFINES.search(part)
        if match is not None and re.search(rf"\b{match[1]}\b", source):
            needed.insert(0, part)
            source += part
    return "\n\n".join(needed)


_DEFINES = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]


# ---------------------------------------------------------------- server


class Server:
    """One server as this process sees it. Any thread.

    With `SystemClock` the server's clock counts and ours only measures the distance to it; any other clock (a test's) takes the
    place of the server's.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self._has_own_clock = not isinstance(clock, SystemClock)
        self._lock = threading.Lock()
        self._idle: list[tuple[Any, float]] = []
        self._pid = os.getpid()
        self._users = 0
        self._offset = 0.0
        self._compared_at = float("-inf")
        self._is_examined = False

    def attach(self) -> Server:
        """One more store uses this server."""
        with self._lock:
            self._users += 1
        return self

    def detach(self) -> None:
        """One store less; the last one closes the connections. They open again if one is used after all."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.disconnect()

    # ------------------------------------------------------------ time

    @property
    def given(self) -> str:
        """The first argument of every script: the time in ms where a test's clock counts, else nothing."""
        return str(round(self.clock.now() * 1000)) if self._has_own_clock else ""

    def now(self) -> float:
        """The server's clock, seconds since the epoch."""
        if self._has_own_clock:
            return self.clock.now()
        if self.clock.monotonic() - self._compared_at > CLOCK_CHECK:
            self._compare_clocks()
        return self.clock.now() + self._offset

    def _compare_clocks(self) -> None:
        asked_at = self.clock.now()
        try:
            seconds, microseconds = self.command("TIME")
        except BrokerUnavailable:
            if self._compared_at == float("-inf"):
                raise
            self._compared_at = self.clock.monotonic()  # while the server is away, the last comparison stands
        else:
            self._saw(int(seconds) + int(microseconds) / 1e6, asked_at)

    def saw(self, theirs: float, asked_at: float) -> None:
        """An answer said what time it is there, which saves asking for it; `asked_at` by our clock."""
        if self.clock.now() - asked_at <= BLURRED:
            self._saw(theirs, asked_at)

    def _saw(self, theirs: float, asked_at: float) -> None:
        self._offset = theirs - (asked_at + self.clock.now()) / 2
        self._compared_at = self.clock.monotonic()

    # ------------------------------------------------------------ asking

    def command(self, *arguments: Any) -> Any:
        """Send one command and return its answer."""
        return self.commands([arguments])[0]

    def commands(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one go; their answers in order."""
        try:
            answers = self._exchange(commands)
        except BrokerUnavailable as error:
            if not error.is_cut or not all(command[0] in READING for command in commands):
                raise
            answers = self._exchange(commands, is_again=True)
        for at, answer in enumerate(answers):
            if isinstance(answer, Exception):
                answers[at] = self._again(commands[at], commands[at][1:2], answer)
        return answers

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script and return its answer."""
        return self.run_all([Call(script, keys, arguments)])[0]

    def run_replicated(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script that writes, and wait until as many replicas as the URL asks for have what it wrote."""
        wanted = self.endpoint.wait_replicas
        command = ("EVAL", script.source, len(keys), *keys, *arguments)
        answer, reached = self.commands([command, ("WAIT", wanted, round(ANSWER_TIMEOUT * 500))])
        if reached < wanted:
            raise BrokerUnavailable(f"{self.endpoint}: only {reached} of {wanted} replicas have stored it so far.")
        return answer

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one go; their answers in order. One that fails does not keep the others from running."""
        commands = [("EVALSHA", each.script.digest, len(each.keys), *each.keys, *each.arguments) for each in calls]
        try:
            answers = self._exchange(commands)
        except BrokerUnavailable as error:
            if not error.is_cut or not all(each.script.changes_nothing for each in calls):
                raise
            answers = self._exchange(commands, is_again=True)
        for at, answer in enumerate(answers):
            if isinstance(answer, Exception):
                script, keys, arguments = calls[at]
                answers[at] = self._again(("EVAL", script.source, len(keys), *keys, *arguments), keys, answer)
        return answers

    def _again(self, command: Sequence[Any], keys: Sequence[str], error: Any) -> Any:
        """Where the server had forgotten the script, or found keys of a wrong type that are now out of the way."""
        for _ in range(TRIES):
            code = _code(error)
            if code == "WRONGTYPE" and not self._quarantine(keys):
                raise StorageBroken(f"{self.endpoint}: {error}. Look for keys of a wrong type under this namespace.") from error
            if code not in ("WRONGTYPE", "NOSCRIPT"):
                break
            (error,) = self._exchange([command])
            if not isinstance(error, Exception):
                return error
        raise self.ours(error)

    def _quarantine(self, keys: Sequence[str]) -> list[str]:
        types = expected_types(keys)
        script = Script.named("quarantine")
        command = ("EVAL", script.source, len(types), *types, self.given, *types.values())
        moved = [name.decode(errors="replace") for name in self.commands([command])[0]]
        for name in moved:
            _logger.error("%s: a key of ours had a wrong type; it was moved to %s", self.endpoint, name)
        return moved

    def _exchange(self, commands: Sequence[Sequence[Any]], is_again: bool = False) -> list[Any]:
        """Answers in order; what the server refuses is an exception among them. Sent again, it goes by a new connection."""
        if not commands:
            return []
        import redis.exceptions as refused

        try:
            connection = self.connect("") if is_again else self._take()
            try:
                connection.send_packed_command([b"".join([_pack(command) for command in commands])], check_health=False)
                answers = []
                for _ in commands:
                    try:
                        answers.append(connection.read_response())
                    except refused.ResponseError as error:
                        answers.append(error)
            except BaseException as error:
                connection.disconnect()
                if isinstance(error, refused.RedisError):
                    raise self.ours(error, was_in_use=True) from error
                raise
        except refused.RedisError as error:
            raise self.ours(error) from error
        self._give_back(connection)
        return answers

    # ------------------------------------------------------------ connections

    def _take(self) -> Any:
        now = time.monotonic()
        with self._lock:
            if self._pid != os.getpid():
                self._idle, self._pid = [], os.getpid()  # the parent's; this process has none yet
            connection, used_at = self._idle.pop() if self._idle else (None, now)
        if connection is not None and now - used_at > IDLE_CHECK and _is_stale(connection):
            connection.disconnect()
            connection = None
        return self.connect("") if connection is None else connection

    def _give_back(self, connection: Any) -> None:
        now = time.monotonic()
        with self._lock:
            self._idle.append((connection, now))
            old = [each for each in self._idle if now - each[1] > FORGET_AFTER]
            if old:
                self._idle = [each for each in self._idle if now - each[1] <= FORGET_AFTER]
        for each, _ in old:
            each.disconnect()

    def connect(self, purpose: str) -> Any:
        """A new connection, ready for use."""
        import redis.exceptions as refused

        connection = self.endpoint.connection(f"stem-{os.getpid()}{purpose}", CONNECT_TIMEOUT, ANSWER_TIMEOUT)
        try:
            connection.connect()
            if not self._is_examined:
                self._examine(connection)
        except BaseException as error:
            connection.disconnect()
            if isinstance(error, refused.RedisError) and self.endpoint.is_tls:
                raise tls.explained(error, self.endpoint) from error
            if isinstance(error, ConfigError) and self._is_examined:  # a certificate on its way from old to new
                raise BrokerUnavailable(f"{self.endpoint}: no new connection can be made: {error}") from error
            raise
        return connection

    def _examine(self, connection: Any) -> None:
        """What the server is: too old, or set up to lose tasks. Once; what cannot be found out is not held against it."""
        from stem_actors.adapters.redis.server import examine

        report = examine(connection, time.time() if self._has_own_clock else self.clock.now())
        if report is not None:
            if report.version < OLDEST_SERVER:
                raise OperatorError(f"{self.endpoint} is Redis {report.version_text}; Stem needs 7.0 or newer.")
            if report.can_drop_tasks and not self.endpoint.accept_data_loss:
                raise OperatorError(
                    f"{self.endpoint} drops tasks when its memory is full (maxmemory-policy {report.eviction}). "
                    "Set maxmemory-policy noeviction there, or accept the loss: stem-node --accept-data-loss, "
                    "or ?accept_data_loss=true in the URL."
                )
            if not self._has_own_clock:
                self._offset, self._compared_at = report.clock_offset, self.clock.monotonic()
            _logger.info("%s: %s", self.endpoint, report)
            for note in report.notes:
                _logger.info("%s: %s", self.endpoint, note)
        self._is_examined = True

    def listen(self) -> Listener:
        """A subscription of the caller's own, connected at first use."""
        return Listener(self)

    # ------------------------------------------------------------ errors

    def ours(self, error: Exception, was_in_use: bool = False) -> Exception:
        """What we raise for an error of the client library, in making a connection or in its use, or an answer of the server."""
        import redis.exceptions as refused

        place, code = self.endpoint, _code(error)
        if isinstance(error, OperatorError | BrokerUnavailable):
            return error
        if code in _REMEDIES:
            kind, remedy = _REMEDIES[code]
            return kind(f"{place}: {error}. {remedy}")
        if isinstance(error, refused.AuthenticationError):
            return StorageBroken(f"{place}: {error}. {_REMEDIES['WRONGPASS'][1]}")
        if isinstance(error, refused.ResponseError) and not isinstance(error, refused.ConnectionError):
            return StorageBroken(f"{place} refused a command: {error}")
        unavailable = BrokerUnavailable(f"{place} does not answer: {error}")
        unavailable.is_cut = was_in_use and isinstance(error, refused.ConnectionError | OSError)
        return unavailable


_REMEDIES: dict[str, tuple[type[Exception], str]] = {
    "OOM": (StorageFull, "Raise maxmemory, or remove data; workers go on draining meanwhile."),
    "MISCONF": (StorageFull, "The server cannot write its data to disk: free disk space and see its log."),
    "LOADING": (BrokerUnavailable, "It reads its data from disk and answers when it is done."),
    "BUSY": (BrokerUnavailable, "A script of somebody keeps it busy; `redis-cli SCRIPT KILL` ends it."),
    "READONLY": (BrokerUnavailable, "It is a replica: name the primary in the URL, or wait for the failover to end."),
    "MASTERDOWN": (BrokerUnavailable, "Its primary is away."),
    "CLUSTERDOWN": (BrokerUnavailable, "The cluster is not complete."),
    "TRYAGAIN": (BrokerUnavailable, "A slot is on the move."),
    "NOREPLICAS": (BrokerUnavailable, "It has fewer replicas than min-replicas-to-write."),
    "UNBLOCKED": (BrokerUnavailable, "It has become a replica meanwhile."),
    "MOVED": (OperatorError, "It is a Redis Cluster, which Stem does not use yet: name a server that is none."),
    "CROSSSLOT": (OperatorError, "It is a Redis Cluster, which Stem does not use yet: name a server that is none."),
    "NOAUTH": (StorageBroken, "Give a password in the URL: redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST."),
    "WRONGPASS": (StorageBroken, "Check user name and password in the URL."),
    "NOPERM": (StorageBroken, "Give this user the rights listed in docs/how-to/redis.md."),
}


def _code(error: Exception) -> str:
    """The word an answer begins with. The client library takes it away from some: then by their class."""
    import redis.exceptions as refused

    if not isinstance(error, refused.RedisError):
        return ""
    for kind, code in (
        (refused.NoScriptError, "NOSCRIPT"),
        (refused.BusyLoadingError, "LOADING"),
        (refused.ReadOnlyError, "READONLY"),
        (refused.NoPermissionError, "NOPERM"),
        (refused.OutOfMemoryError, "OOM"),
        (refused.MasterDownError, "MASTERDOWN"),
        (refused.ClusterDownError, "CLUSTERDOWN"),
        (refused.TryAgainError, "TRYAGAIN"),
    ):
        if isinstance(error, kind):
            return code
    if not isinstance(error, refused.ResponseError | refused.AuthenticationError):
        return ""
    text = str(error)
    if text.startswith("Authentication required"):
        return "NOAUTH"
    if text.startswith(("invalid username-password", "WRONGPASS")):
        return "WRONGPASS"
    return text.split(" ", 1)[0].rstrip(":")


def _pack(command: Sequence[Any]) -> bytes:
    from hiredis import pack_command

    packed: bytes = pack_command(tuple(command))
    return packed


def _is_stale(connection: Any) -> bool:
    import redis.exceptions as refused

    try:
        return bool(connection.can_read(0))
    except (refused.RedisError, OSError):
        return True


# ---------------------------------------------------------------- listening


class Listener:
    """Waits for messages on channels without asking the server meanwhile.

    `wait`, `subscribe` and `unsubscribe` are for one thread at a time; `interrupts` end a wait. A connection that is lost is
    made anew at the next use; what was sent meanwhile is lost, so a caller looks for itself whenever `generation` has changed,
    and every few seconds anyway.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Any = None
        self._channels: set[str] = set()
        self._heard: list[bytes] = []
        self.interrupts = Interrupt()
        self.generation = 0

    def subscribe(self, channels: Sequence[str]) -> None:
        """Listen to these too. When it returns the server knows."""
        new = [channel for channel in channels if channel not in self._channels]
        self._channels.update(new)
        if self._connection is not None and new:
            with _no_matter_if_cut():
                self._tell("SUBSCRIBE", new)
        if self._connection is None:
            self._connect()

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Listen to these no longer. A subscription ends with its connection, too."""
        gone = [channel for channel in channels if channel in self._channels]
        self._channels.difference_update(gone)
        if self._connection is not None and gone:
            with _no_matter_if_cut():
                self._tell("UNSUBSCRIBE", gone)

    def _connect(self) -> None:
        import redis.exceptions as refused

        try:
            self._connection = self._server.connect("-listen")
        except refused.RedisError as error:
            raise self._server.ours(error) from error
        self.generation += 1
        if self._channels:
            self._tell("SUBSCRIBE", list(self._channels))

    def _tell(self, verb: str, channels: Sequence[str]) -> None:
        """Send it and read up to its last confirmation; messages in between are kept for the next `wait`."""
        import redis.exceptions as refused

        try:
            self._connection.send_command(verb, *channels, check_health=False)
            confirmed = 0
            while confirmed < len(channels):
                answer = self._connection.read_response()
                if answer[0] in (b"subscribe", b"unsubscribe"):
                    confirmed += 1
                else:
                    self._keep(answer)
        except refused.RedisError as error:
            self._lose()
            raise self._server.ours(error, was_in_use=True) from error

    def _lose(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; True when it is worth while to look before they have passed.

        That is: a message came (see `take_heard`), somebody interrupted, or the connection was made anew.

        Raises:
            BrokerUnavailable: the connection was lost, or none can be made.
        """
        if self._connection is None:
            self._connect()
            return True
        self._read()
        if self._heard or timeout <= 0:
            return bool(self._heard)
        poll = select.poll()
        poll.register(self._connection._sock, select.POLLIN)
        poll.register(self.interrupts, select.POLLIN)
        is_told = bool(poll.poll(max(1, math.ceil(timeout * 1000))))
        self._read()
        return is_told

    def wait_or_renew(self, timeout: float) -> bool:
        """As `wait`, for one who only reads: a connection that is lost meanwhile is made anew at once, and worth a look."""
        with _no_matter_if_cut():
            return self.wait(timeout)
        return self.wait(0)

    def take_heard(self) -> list[bytes]:
        """What the messages said that came since this was last asked."""
        heard, self._heard = self._heard, []
        return heard

    def _read(self) -> None:
        import redis.exceptions as refused

        try:
            while self._connection.can_read(0):
                self._keep(self._connection.read_response())
        except (refused.RedisError, OSError) as error:
            self._lose()
            raise self._server.ours(error, was_in_use=True) from error

    def _keep(self, answer: Any) -> None:
        if answer[0] == b"message":
            self._heard.append(answer[2])

    def close(self) -> None:
        """Idempotent; not while another thread waits."""
        self.interrupts.close()
        self._lose()


@contextmanager
def _no_matter_if_cut() -> Iterator[None]:
    """What the block asks of a connection may end with it."""
    try:
        yield
    except BrokerUnavailable as error:
        if not error.is_cut:
            raise
