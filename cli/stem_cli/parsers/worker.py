"""`stem worker`: what workers say of themselves, what they are told, and nodes as processes of this host."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_group
from stem_cli.parsers.worker_control import add_control
from stem_cli.parsers.worker_processes import add_processes

__all__ = ["add_worker"]


def add_worker(commands: Commands) -> None:
    worker = add_group(commands, "worker", "look at workers", "stem worker status --once")
    status = add_command(
        worker,
        "status",
        "worker:status",
        "show the last heartbeat of each worker",
        "stem worker status --once --json",
        "stem worker status --follow --timeout 0",
        more="When following it exits with 1 when no heartbeat came for --timeout, with 70 when the store was away for so long.",
    )
    how = status.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="print a snapshot and exit (what it does anyway)")
    how.add_argument(
        "--follow", "-f", action="store_true", help="go on: refreshed in place on a terminal, else a line for each change"
    )
    status.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="only this worker; repeatable")
    status.add_argument(
        "--timeout",
        metavar="DURATION",
        default="30s",
        help="with --follow: give up when no heartbeat came for so long; 0: never (default: 30s)",
    )
    status.add_argument(
        "--heartbeat-interval",
        metavar="DURATION",
        dest="expected_interval",  # not the setting's name: this is about other processes'
        help="a heartbeat older than this is marked stale (default: STEM_HEARTBEAT_INTERVAL)",
    )
    status.add_argument(
        "--metrics-exporters",
        metavar="LIST",
        help="taken, so that older scripts go on, and put to no use: metrics come from nodes (`stem observe metrics`)",
    )
    add_control(worker)
    add_processes(worker)
