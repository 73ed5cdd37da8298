"""`stem worker healthcheck`: whether the node that a pid file names runs, and whether work can flow there."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from stem_actors.errors import UsageError
from stem_actors.model.json_names import iso_time
from stem_cli.connection import duration_of
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration
from stem_cli.pid_file import PidFile, PidFileBroken, ProcessMark

__all__ = ["run", "why_not_ready"]


def run(args: argparse.Namespace, output: Output) -> int:
    timeout = duration_of(args.timeout, "--timeout")
    if not timeout:
        raise UsageError("--timeout needs a duration above 0, such as 5s")
    path = Path(args.pidfile)
    found: dict[str, Any] = {"status": "error", "node": args.node or path.stem, "pidfile": str(path)}
    if args.logfile:
        found["logfile"] = args.logfile
    found |= _look(PidFile(path), None if args.liveness else timeout)
    if not args.quiet:
        if output.as_json:
            output.document(found)
        else:
            output.line(f"{found['node']}: {_sentence(found)}")
    return ExitCode.OK if found["status"] == "ok" else ExitCode.FAILED


def _look(pid_file: PidFile, timeout: float | None) -> dict[str, Any]:
    """What there is to say beside the names; no timeout: its readiness is not asked for."""
    try:
        mark = pid_file.read()
    except PidFileBroken as error:
        return {"error": "invalid-pid", "message": str(error)}
    if mark is None:
        return {"error": "pidfile-missing"}
    if not mark.is_running:
        return {"error": "process-not-running", "pid": mark.pid}
    facts = {"pid": mark.pid, "since": iso_time(time.time() - mark.age), "uptimeSeconds": round(mark.age)}
    reason = None if timeout is None else why_not_ready(mark, timeout)
    if reason is not None:
        return {**facts, "error": "not-ready", "reason": reason}
    return {"status": "ok", **facts}


def _sentence(found: dict[str, Any]) -> str:
    if found["status"] == "ok":
        return f"ok, pid {found['pid']}, for {readable_duration(found['uptimeSeconds'])}"
    details = found.get("reason") or found.get("message") or (f"pid {found['pid']}" if "pid" in found else found["pidfile"])
    return f"{found['error']}: {details}"


# ---------------------------------------------------------------- readiness


def why_not_ready(mark: ProcessMark, timeout: float) -> str | None:
    """What a node's `/readyz` has against it; None when it is ready."""
    import psutil

    try:
        addresses = list(_listens_on(mark.pid))
    except psutil.AccessDenied:
        return "where it answers cannot be seen from here: ask as its user, or as root"
    except psutil.NoSuchProcess:
        return "it has ended just now"
    for host, port in addresses:
        try:
            return _ask(host, port, timeout)
        except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError):  # it is no admin server
            continue
    if addresses:
        return f"it did not answer within {readable_duration(timeout)}"
    return "it serves no /readyz: it has just been started, or runs with --admin off (then look at --liveness only)"


def _listens_on(pid: int) -> Iterator[tuple[str, int]]:
    """Where a process takes connections: of a node, that is its admin server, whichever way it was told where."""
    import psutil

    for connection in psutil.Process(pid).net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(connection.laddr.ip, connection.laddr.ip)
            yield host, connection.laddr.port


def _ask(host: str, port: int, timeout: float) -> str | None:
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/readyz", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        health = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status == 200:
        return None
    reasons = [f"{part}: {reason}" for part, found in health["reasons"].items() for reason in found]
    return "; ".join(reasons) or f"its answer is {answer.status}"
