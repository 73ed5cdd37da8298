"""`stem queue`: what is in the queues, and emptying one."""

from __future__ import annotations

import argparse

from stem_cli import audit
from stem_cli.confirmation import confirm
from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["list_queues", "purge"]


def list_queues(args: argparse.Namespace, output: Output) -> int:
    with opened(resolved(args).settings) as app:
        depths = app.stores.broker.depths()
    if output.as_json:
        output.document(
            [
                {
                    "queue": each.queue,
                    "pending": each.pending,
                    "inflight": each.inflight,
                    "delayed": each.delayed,
                    "dead": each.dead,
                    "oldestMs": None if each.oldest_age is None else round(each.oldest_age * 1000),
                    "paused": False,
                }
                for each in depths
            ]
        )
    elif depths:
        rows = [(d.queue, d.pending, d.inflight, d.delayed, d.dead, readable_duration(d.oldest_age)) for d in depths]
        output.table(("Queue", "Pending", "Inflight", "Delayed", "Dead", "Oldest"), rows)
    else:
        output.message("all queues are empty")
    return ExitCode.OK


def purge(args: argparse.Namespace, output: Output) -> int:
    """Remove what waits in a queue, never what is running."""
    settings = resolved(args).settings
    with opened(settings) as app:
        broker = app.stores.broker
        waiting = sum(
            depth.pending + depth.delayed + (depth.dead if args.dead_letters else 0) for depth in broker.depths([args.queue])
        )
        removed = 0
        if waiting:
            dead = ", dead letters included" if args.dead_letters else ""
            confirm(f"remove all {waiting:,} waiting tasks of queue {args.queue!r}{dead}, for good", args.yes)
            with output.progress(f"emptying queue {args.queue}"):
                removed = broker.purge(args.queue, args.dead_letters)
            audit.note(settings, "queue purge", args.queue, removed, dead_letters=args.dead_letters)
    if output.as_json:
        output.document({"queue": args.queue, "deadLetters": args.dead_letters, "count": removed})
    else:
        output.line(f"removed {removed:,} task{'' if removed == 1 else 's'} from queue {args.queue!r}")
    return ExitCode.OK
