"""The commands of `stem worker` that are sent to running workers."""

from __future__ import annotations

import argparse

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import REVOKING, add_command, add_pausing, add_revoking

__all__ = ["add_control"]


def add_control(worker: Commands) -> None:
    answers = (
        "Exits with 0 when all have answered, 75 when only some have, 70 when none has or one reports an error. "
        "Expected are the workers named by --worker, or else all that have a live heartbeat."
    )
    ping = add_command(worker, "ping", "control:ping", "ask who is there", "stem worker ping --json", more=answers)
    stats = add_command(
        worker, "stats", "control:stats", "ask workers for their state and figures", "stem worker stats -w web-1", more=answers
    )
    inspect = add_command(
        worker,
        "inspect",
        "control:inspect",
        "ask workers what they run",
        "stem worker inspect --no-include-revoked",
        more=answers,
    )
    inspect.add_argument(
        "--include-revoked", action=argparse.BooleanOptionalAction, default=True, help="list revoked tasks, too (default: yes)"
    )
    revoke = add_command(
        worker,
        "revoke",
        "control:revoke",
        "cancel tasks, wherever they are",
        "stem worker revoke --task 0190b6c8-… --terminate --reason 'wrong month'",
        more=REVOKING,
    )
    revoke.add_argument("--task", "-t", metavar="ID", action="append", default=[], help="the task to cancel; repeatable")
    add_revoking(revoke)
    pause, resume = (
        add_command(
            worker,
            verb,
            f"control:{verb}",
            what,
            f"stem worker {verb} --queue mail",
            more="It is stored first and holds for all workers, also those that start later; the ones named by --worker are told "
            f"now, the others see it within ten seconds. {answers}",
        )
        for verb, what in (
            ("pause", "let workers leave queues alone; what runs goes on"),
            ("resume", "let workers receive from paused queues again"),
        )
    )
    for command, verb in ((pause, "pause"), (resume, "resume")):
        command.add_argument(
            "--queue", "-q", metavar="QUEUE", action="append", default=[], help=f"the queue to {verb}; repeatable"
        )
        add_pausing(command, verb)
    scale = add_command(
        worker,
        "concurrency",
        "control:concurrency",
        "give workers more executors, or fewer",
        "stem worker concurrency 8 -w web-1",
        more="No task is interrupted: an executor that is too many leaves when what it runs has ended. It holds until the worker "
        "ends. A worker that was started with --autoscale refuses. " + answers,
    )
    scale.add_argument("executors", metavar="N", type=int, help="executor processes of each worker")
    leave = add_command(
        worker,
        "shutdown",
        "control:shutdown",
        "let workers leave",
        "stem worker shutdown -w web-1 --mode warm",
        more="A node starts a worker that has left again: to stop a node, send it SIGTERM. " + answers,
    )
    leave.add_argument(
        "--mode",
        choices=("warm", "soft", "hard"),
        default="warm",
        help="warm: running tasks end first; soft: they are interrupted and handed back; hard: they are killed and handed back",
    )
    for command in (ping, stats, inspect, revoke, pause, resume, scale, leave):
        command.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="only this worker; repeatable")
        command.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for answers (default: 5s)")
