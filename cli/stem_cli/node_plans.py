"""What `stem worker multi` is to do: a `Plan` for each node, from the command line and the environment."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stem_actors.config import WORD, Resolved, read_value, resolve
from stem_actors.errors import ConfigError
from stem_cli.pid_file import PidFile

__all__ = ["Plan", "plans_of"]

_NODES = ("STEMD_NODES", "STEM_WORKER_NODES")
_COMMANDS = ("STEM_WORKER_COMMAND", "STEMD_COMMAND")
_LOG_FILE = "/var/log/stem/%n.log"
_PORTS_TRIED = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """One node: where its files are, and how it would be started.

    `admin`  the first address that may be its admin server's; None: its settings say where that is
    """

    name: str
    pid_file: PidFile
    log_file: Path
    command: Sequence[str]
    directory: Path
    environ: Mapping[str, str]
    admin: tuple[str, int] | None = None

    def free_admin(self) -> Mapping[str, str]:
        """The first admin address that nobody has now. Who takes it before the node does keeps it; the node says so and ends."""
        if self.admin is None:
            return {}
        host, port = self.admin
        for each in range(port, port + _PORTS_TRIED):
            with contextlib.suppress(OSError), socket.create_server((host, each)):
                return {"STEM_ADMIN": f"{host}:{each}"}
        return {"STEM_ADMIN": f"{host}:0"}


def plans_of(args: argparse.Namespace, environ: Mapping[str, str]) -> list[Plan]:
    """One for each node that is named. Settings and command are looked at only for an action that starts something.

    Raises:
        ConfigError: nobody is named, or something given does not fit.
    """
    configured = _first(_NODES, environ).split()
    names = list(dict.fromkeys(args.nodes or configured))
    if not names:
        raise ConfigError(f"name the nodes: stem worker multi {args.action} NODE…, or set {_NODES[0]} (or {_NODES[1]})")
    for name in names:
        read_value(WORD, name, "NODE")
    if "%d" in args.pidfile:
        raise ConfigError("--pidfile cannot hold %d: a node has to be found again under the same name")
    starts = args.action in ("start", "restart")
    given = resolve(vars(args), environ) if starts else None
    tokens = _command(args, environ) if starts else []
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    order = list(dict.fromkeys([*configured, *names]))
    plans = [_plan(args, environ, given, tokens, _Placeholders(name, order.index(name) + 1, moment)) for name in names]
    if len({plan.pid_file.path for plan in plans}) < len(plans):
        raise ConfigError(f"--pidfile {args.pidfile} is the same file for several nodes: use %n in it")
    return plans


def _plan(
    args: argparse.Namespace, environ: Mapping[str, str], given: Resolved | None, tokens: Sequence[str], node: _Placeholders
) -> Plan:
    pid_path, log_path, directory = (
        Path(node.fill(each)).absolute() for each in (args.pidfile, args.logfile or _LOG_FILE, args.workdir)
    )
    own = {
        "STEM_WORKER_NODE": node.name,
        "STEM_WORKER_INDEX": str(node.index),
        "STEM_WORKER_HOST": os.uname().nodename,
        "STEM_WORKER_PIDFILE": str(pid_path),
        "STEM_WORKER_LOGFILE": str(log_path),
    }
    chosen = {} if given is None else _chosen(args, given, node.name)
    admin = None if given is None else _first_admin(given, node.index)
    command = [node.fill(token) for token in tokens]
    return Plan(node.name, PidFile(pid_path), log_path, command, directory, {**environ, **chosen, **own}, admin)


@dataclass(frozen=True, slots=True)
class _Placeholders:
    name: str
    index: int
    moment: str

    def fill(self, template: str) -> str:
        """Replace the placeholders; a `%` before anything else stands for itself, and so does `%%`."""
        values = {
            "n": self.name,
            "N": self.name.upper(),
            "h": os.uname().nodename,
            "i": str(self.index),
            "I": str(self.index),
            "d": self.moment,
            "%": "%",
        }
        return re.sub(r"%([nNhiId%])", lambda found: values[found[1]], template)


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> list[str]:
    line = args.command_line or ("" if args.command else _first(_COMMANDS, environ))
    try:
        tokens = args.command or shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"the command {line!r} cannot be taken apart into words: {error}") from error
    return tokens or [_beside_us("stem-node")]


def _beside_us(program: str) -> str:
    """Our own, where we are called by a path that the shell's does not lead to."""
    path = Path(sys.executable).with_name(program)
    return str(path) if path.exists() else program


def _chosen(args: argparse.Namespace, given: Resolved, name: str) -> dict[str, str]:
    """The settings that this command line decides, and a name that other nodes of the host do not have."""
    settings, sources = given.settings, given.sources
    variables = settings.as_environ()
    flags = {"broker_url", "result_backend_url", "namespace", "app", "log_level"}
    chosen = {
        variable: variables[variable]
        for variable, setting in ((f"STEM_{each.upper()}", each) for each in flags)
        if sources[setting].startswith("-")
    }
    if args.config:
        chosen["STEM_CONFIG"] = str(Path(args.config).absolute())
    chosen["STEM_DEFAULT_QUEUE"] = settings.worker_queues[0]
    chosen["STEM_WORKER_QUEUES"] = ",".join(settings.worker_queues)
    if sources["name"] == "default":
        chosen["STEM_NAME"] = f"{settings.name}-{name}"[:128]
    return chosen


def _first_admin(given: Resolved, index: int) -> tuple[str, int] | None:
    """Nodes of one host cannot share the address that is the default; each begins to look at another."""
    if given.sources["admin"] != "default" or given.settings.admin_address is None:
        return None
    host, port = given.settings.admin_address
    return host, port + index - 1


def _first(names: Sequence[str], environ: Mapping[str, str]) -> str:
    return next((environ[name] for name in names if environ.get(name, "").strip()), "")
