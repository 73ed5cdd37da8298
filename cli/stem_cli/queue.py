"""`stem queue`: what is in the queues."""

from __future__ import annotations

import argparse

from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["list_queues"]


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
