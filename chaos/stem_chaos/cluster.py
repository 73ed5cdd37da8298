"""The cluster under test: nodes that are started again when they end, as by an init system, their broker, and the links between.

Owns every process it starts and whatever those start: each carries a mark in its environment, by which `close` finds also what
has lost its parent. No other process is ever sent a signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stem_actors import Stem
from stem_actors.config import resolve
from stem_actors.errors import ConfigError, OperatorError
from stem_chaos.clock import SteppedClock
from stem_chaos.link import Proxy
from stem_chaos.node import Node, WorkerProcess, is_running
from stem_chaos.route import route_of
from stem_chaos.servers import PrivatePostgres, PrivateRedis, PrivateServer, PrivateSqlite, RedisPair
from stem_chaos.waiting import within

__all__ = ["Cluster", "Layout", "Node", "WorkerProcess", "own_command"]

OWN_PROBE = "stem_chaos.probe:instrument"
PROBE_VARIABLE = "STEM_CHAOS_PROBE"
"""Names another probe for the nodes, where it is set: one that puts something between ours and the broker."""
_MARK = "STEM_CHAOS_MARK"
_RECORDED = "stem_chaos.application:app"
_READY_WITHIN = 60.0
_GONE_WITHIN = 20.0
_HEARS_WITHIN = 20.0
_MARGIN = 15.0  # seconds for a node to leave, beyond what it gives its tasks


@dataclass(frozen=True, slots=True)
class Layout:
    """What a cluster is made of.

    `app`           the application whose tasks it runs, MODULE:ATTRIBUTE
    `is_recorded`   probes write what workers and executors do into the history
    `settings`      further settings by their variables (`STEM_DRAIN_TIMEOUT`), for nodes and clients alike
    `environment`   further variables, for nodes alone
    `command`       the program that is a node, with its first arguments; default: `stem-node` of this Python
    `has_replica`   a private Redis has a replica that can take over
    `is_disk_small` the private SQLite database lies on a small file system of its own, where one may be mounted
    `steps_clocks`  each node has a wall clock of its own, which can be stepped
    """

    app: str
    is_recorded: bool = True
    nodes: int = 1
    workers: int = 2
    concurrency: int = 2
    visibility_timeout: float = 3.0
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    has_replica: bool = False
    is_disk_small: bool = False
    steps_clocks: bool = False


class Cluster:
    """Nodes on one broker, in the directory of a run. `start`, then `keep_alive` often; `stop` and `close` in the end.

    `broker` is `sqlite`, `redis` or `postgres` for a private one, or a URL. The nemesis may do its work in another thread
    meanwhile.
    `url` is what clients use; it leads through `link` where the broker can be reached by TCP. Each node has another such link.
    """

    def __init__(self, directory: Path, broker: str, layout: Layout) -> None:
        self.directory = directory.resolve()
        self.layout = layout
        self.server: PrivateServer | None = self._private(broker)
        self.link: Proxy | None = None
        self.url = broker
        self.nodes: list[Node] = []
        self._broker = broker
        self._mark = uuid.uuid4().hex
        self._app: Stem | None = None
        self._names = 0
        self._companions: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def app(self) -> Stem:
        """A client with the settings of the nodes, once it has started."""
        assert self._app is not None
        return self._app

    @property
    def links(self) -> list[Proxy]:
        """Every way to the broker: the clients' and each node's."""
        return [link for link in (self.link, *(node.link for node in self.nodes)) if link is not None]

    # ------------------------------------------------------------ its life

    def start(self) -> None:
        """Start the broker, then the nodes; does not wait until they are ready.

        Raises:
            OperatorError: the broker cannot be started.
        """
        if self.server is not None:
            self.server.start()
        self.link, self.url = self._linked()
        self._app = Stem(settings=resolve({}, self.settings(self.url)).settings)
        for _ in range(self.layout.nodes):
            self.add_node()

    def add_node(self, command: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Node:
        """Start one more node, with another program or other variables than the layout has, if they are named."""
        self._names += 1
        name = f"node{self._names}"
        folder = self.directory / "nodes"
        link, url = self._linked()
        clock = SteppedClock(folder / f"{name}.clock") if self.layout.steps_clocks else None
        node = Node(name, (), self._environment(url, name, environment, clock), folder / f"{name}.log", link, clock)
        node.command = self.command(command)
        self.nodes.append(node)
        node.keep_alive()
        return node

    def command(self, command: Sequence[str] = ()) -> list[str]:
        """The whole command line of a node whose program is `command`."""
        app = _RECORDED if self.layout.is_recorded else self.layout.app
        return [*(command or self.layout.command or own_command()), "--app", app, "--enable-chaos"]

    def keep_alive(self) -> None:
        """Start what has ended.

        Raises:
            ConfigError: a node refuses to work at all; the text is what it said.
        """
        for node in self.nodes:
            node.keep_alive()
            refused = node.refused
            if refused is not None:
                raise ConfigError(f"{node.name} does not work with these settings:\n{refused}")

    def wait_ready(self, timeout: float = _READY_WITHIN) -> None:
        """Wait until every node is ready for work, kept alive meanwhile.

        Raises:
            OperatorError: one is not, in time.
        """

        def all_are() -> bool:
            self.keep_alive()
            return all(node.is_ready() for node in self.nodes)

        if not within(timeout, all_are):
            late = [node for node in self.nodes if not node.is_ready()] or self.nodes
            raise OperatorError(f"{', '.join(node.name for node in late)} not ready within {timeout:g} s; see {late[0].log}")

    def workers(self) -> list[WorkerProcess]:
        """The worker processes of all nodes that run."""
        return [worker for node in self.nodes for worker in node.workers()]

    def stop(self) -> list[int]:
        """Let every node leave, and wait; the exit codes, -9 for one that had to be killed.

        One that was started a moment ago is let come up first: before it hears signals, SIGTERM ends it as any program.
        """
        for pid in self.processes():
            _send(pid, signal.SIGCONT)
        within(_HEARS_WITHIN, lambda: all(node.pid is None or node.workers() for node in self.nodes))
        settings = self.app.settings
        deadline = time.monotonic() + settings.drain_timeout + settings.soft_grace_period + _MARGIN
        for node in self.nodes:
            node.leave()
        return [node.wait(max(0.1, deadline - time.monotonic())) for node in self.nodes]

    def close(self) -> None:
        """End everything at once, also what is stopped or has lost its parent. Idempotent."""
        for node in self.nodes:
            node.leave()
            node.kill()

        def all_are_gone() -> bool:
            left = self.processes()
            for pid in left:
                _send(pid, signal.SIGKILL)
            return not left

        within(_GONE_WITHIN, all_are_gone)
        for pid in list(self._companions):
            self.dismiss(pid)
        if self._app is not None:
            self._app.close()
            self._app = None
        for link in self.links:
            link.close()
        if self.server is not None:
            self.server.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ companions

    def accompany(self, program: str, *arguments: str) -> int | None:
        """Start a Python program beside the nodes; its pid once it has said a line, None when it ends without.

        It has to end when its standard input does: that it is dismissed then, or that we are gone.
        """
        companion = subprocess.Popen(
            [sys.executable, "-I", "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, _MARK: self._mark},
        )
        assert companion.stdout is not None
        self._companions[companion.pid] = companion
        if companion.stdout.readline():
            return companion.pid
        self.dismiss(companion.pid)
        return None

    def dismiss(self, pid: int) -> None:
        """End a companion and wait until it is gone."""
        companion = self._companions.pop(pid, None)
        if companion is not None:
            companion.communicate()

    # ------------------------------------------------------------ settings and addresses

    def settings(self, url: str) -> dict[str, str]:
        """The settings of a node or client whose way to the broker is `url`, as variables."""
        layout = self.layout
        return {
            "STEM_BROKER_URL": url,
            "STEM_WORKERS": str(layout.workers),
            "STEM_CONCURRENCY": str(layout.concurrency),
            "STEM_VISIBILITY_TIMEOUT": f"{round(1000 * layout.visibility_timeout)}ms",
            "STEM_LOG_FORMAT": "json",
            **layout.settings,
        }

    def _environment(
        self, url: str, name: str, environment: Mapping[str, str] | None, clock: SteppedClock | None
    ) -> dict[str, str]:
        inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("STEM_")}
        probe = {"STEM_CHAOS_APP": self.layout.app, PROBE_VARIABLE: os.environ.get(PROBE_VARIABLE) or OWN_PROBE}
        everything = {
            **inherited,
            **self.settings(url),
            **(probe if self.layout.is_recorded else {}),
            "STEM_CHAOS_DIRECTORY": str(self.directory),
            "STEM_NAME": name,
            "STEM_ADMIN": "127.0.0.1:0",
            _MARK: self._mark,
            **self.layout.environment,
            **(environment or {}),
        }
        return everything if clock is None else clock.environment(everything)

    def _private(self, broker: str) -> PrivateServer | None:
        folder = self.directory / "broker"
        match broker:
            case "sqlite":
                return PrivateSqlite(folder, self.layout.is_disk_small)
            case "redis":
                return RedisPair(folder) if self.layout.has_replica else PrivateRedis(folder)
            case "postgres":
                return PrivatePostgres(folder)
            case _:
                return None

    def _linked(self) -> tuple[Proxy | None, str]:
        """One more way to the broker, and its URL."""
        match self.server:
            case PrivateSqlite():
                return None, self.server.url
            case PrivateRedis() | RedisPair():
                link = Proxy(self.server.address)
                return link, f"redis://127.0.0.1:{link.port}/0"
            case PrivatePostgres():
                link = Proxy(self.server.address)
                return link, f"postgres://postgres@127.0.0.1:{link.port}/postgres"
            case None:
                return _linked_url(self._broker)

    # ------------------------------------------------------------ processes

    def processes(self) -> list[int]:
        """The pids of everything that carries our mark and runs."""
        mark = f"{_MARK}={self._mark}".encode()
        found: list[int] = []
        for pid in psutil.pids():
            with suppress(OSError):
                if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and is_running(pid):
                    found.append(pid)
        return found


def own_command() -> list[str]:
    """`stem-node` of the Python that runs here, installed or not."""
    installed = Path(sys.executable).with_name("stem-node")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "stem_cli.node_command"]


def _linked_url(url: str) -> tuple[Proxy | None, str]:
    """A link to the server that a URL names, and the URL that leads through it; none where no proxy can stand."""
    route = route_of(url)
    if route is None:
        return None, url
    link = Proxy(route.target)
    return link, route.through(link.port)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
