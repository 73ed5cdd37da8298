"""`stem queue`: what is in the queues; pausing, resuming and emptying them."""

from __future__ import annotations

import argparse

from stem_actors.ports import QueueDepth
from stem_cli import audit, control
from stem_cli.confirmation import confirm
from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["list_queues", "pause", "purge", "resume"]


def list_queues(args: argparse.Namespace, output: Output) -> int:
    with opened(resolved(args).settings) as app:
        paused = {each.queue for each in app.stores.pauses.paused()}
        found = {each.queue: each for each in app.stores.broker.depths()}
    depths = [found.get(name) or _empty(name) for name in sorted(found.keys() | paused)]
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
                    "paused": each.queue in paused,
                }
                for each in depths
            ]
        )
    elif depths:
        rows = [
            (
                d.queue,
                d.pending,
                d.inflight,
                d.delayed,
                d.dead,
                readable_duration(d.oldest_age),
                "yes" if d.queue in paused else "",
            )
            for d in depths
        ]
        output.table(("Queue", "Pending", "Inflight", "Delayed", "Dead", "Oldest", "Paused"), rows)
    else:
        output.message("all queues are empty")
    return ExitCode.OK


def _empty(queue: str) -> QueueDepth:
    return QueueDepth(queue, 0, 0, 0, 0, None)


def pause(args: argparse.Namespace, output: Output) -> int:
    return _change(args, output, is_paused=True)


def resume(args: argparse.Namespace, output: Output) -> int:
    return _change(args, output, is_paused=False)


def _change(args: argparse.Namespace, output: Output, is_paused: bool) -> int:
    """What counts is that it is stored; workers are told, and those who do not answer find it there."""
    answers = control.change_pauses(args, args.queue, is_paused, workers=None)
    if output.as_json:
        output.document([{"queue": queue, "paused": is_paused} for queue in args.queue])
    else:
        for queue in args.queue:
            output.line(f"queue {queue!r} is {'paused' if is_paused else 'resumed'}")
    for worker in answers.silent:
        output.message(f"worker {worker} did not answer; it finds it in the store within seconds")
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
