"""The commands of `stem worker` for nodes as processes of this host."""

from __future__ import annotations

import argparse

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_environment_file, add_process_files

__all__ = ["add_processes"]


def add_processes(worker: Commands) -> None:
    multi = add_command(
        worker,
        "multi",
        "multi:run",
        "start, stop and restart nodes of this host, or see whether they run",
        "stem worker multi start mail reports --app shop.tasks:app --queue default",
        "stem worker multi stop mail --pidfile '/run/shop/%n.pid'",
        "stem worker multi restart mail --command-line 'stem-node --concurrency 4 --name %n'",
        "stem worker multi start mail --foreground --env-file /etc/shop/stem.env",
        more="In paths and in the command %n stands for the node's name, %N for it in capitals, %h for the host, %i or %I for "
        "the node's number from 1, %d for the time in UTC, %% for a percent sign. Each node gets its queues, and unless they are "
        "set a STEM_NAME (HOST-NODE) and a STEM_ADMIN (the first free port from 9808 on, or for the second node from 9809, …) as "
        "variables. One that does not leave in time is killed. "
        "Exits with 0; start: 1 when it runs already, 70 when it cannot be started; stop: 70 when it cannot be ended; "
        "status: 3 when it does not run. With several nodes the last of these that is not 0 counts.",
    )
    multi.add_argument(
        "action", choices=("start", "stop", "restart", "status"), metavar="ACTION", help="start, stop, restart, status"
    )
    multi.add_argument(
        "nodes", metavar="NODE", nargs="*", help="names of the nodes (default: those in STEMD_NODES or STEM_WORKER_NODES)"
    )
    what = multi.add_mutually_exclusive_group()
    what.add_argument("--command", metavar="ARG", action="append", help="one word of the command; repeatable: --command=--app")
    what.add_argument(
        "--command-line",
        metavar="COMMAND",
        help="the command, with quotes as in a shell (default: STEM_WORKER_COMMAND or STEMD_COMMAND, or else stem-node)",
    )
    multi.add_argument(
        "--queue", "-q", metavar="QUEUE", dest="queues", action="append", help="queue to work on; repeatable (default: default)"
    )
    multi.add_argument(
        "--pidfile", metavar="PATH", default="/var/run/stem/%n.pid", help="pid file of each (default: /var/run/stem/%%n.pid)"
    )
    multi.add_argument("--logfile", metavar="PATH", help="log file of each, appended to (default: /var/log/stem/%%n.log)")
    multi.add_argument("--workdir", metavar="PATH", default=".", help="where they run (default: here)")
    add_environment_file(multi)
    multi.add_argument(
        "--detach", action=argparse.BooleanOptionalAction, default=True, help="let them go on by themselves (default: yes)"
    )
    multi.add_argument(
        "--foreground",
        action="store_true",
        help="the same as --no-detach: run one node, pass signals on to it and end with its exit code; "
        "it writes to where we do unless --logfile is given",
    )
    multi.add_argument(
        "--timeout",
        metavar="DURATION",
        help="kill a node that has not left after so long (default: 30s, and longer where STEM_DRAIN_TIMEOUT and "
        "STEM_SOFT_GRACE_PERIOD need it)",
    )

    check = add_command(
        worker,
        "healthcheck",
        "healthcheck:run",
        "see whether one node of this host runs, and is ready",
        "stem worker healthcheck --pidfile /var/run/stem/mail.pid",
        "stem worker healthcheck --pidfile /var/run/stem/mail.pid --liveness --quiet",
        more="Asks the /readyz of the process that the pid file names. Exits with 0 when it is well, else with 70.",
    )
    check.add_argument("--pidfile", metavar="PATH", required=True, help="the node's pid file")
    check.add_argument("--node", metavar="NAME", help="name to show (default: that of the pid file)")
    check.add_argument("--logfile", metavar="PATH", help="log file to show")
    check.add_argument("--liveness", action="store_true", help="look at the process only, not at whether work can flow")
    check.add_argument("--quiet", action="store_true", help="print nothing: the exit code says it")
    check.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for its answer (default: 5s)")

    diagnose = add_command(
        worker,
        "diagnose",
        "diagnose:run",
        "find out why a node of this host does not start or does not work",
        "stem worker diagnose --pidfile /var/run/stem/mail.pid --logfile /var/log/stem/mail.log",
        more="Exits with 0 when nothing is wrong (warnings aside), else with 70.",
    )
    add_process_files(diagnose)
    diagnose.add_argument("--timeout", metavar="DURATION", default="5s", help="for each question to a store (default: 5s)")
