"""`stem task unique`: who holds the key of unique tasks, and giving a key free."""

from __future__ import annotations

import argparse
from typing import Any

from stem_actors.model.json_names import iso_time
from stem_actors.model.uniqueness import HeldClaim
from stem_cli import audit
from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["unique"]


def unique(args: argparse.Namespace, output: Output) -> int:
    """Show the tasks that hold a key, and with `--free` take it from them."""
    settings = resolved(args).settings
    with opened(settings) as app:
        held = app.stores.broker.claims(args.key, args.queue)
        freed = 0
        for each in held if args.free else ():
            count = int(app.stores.broker.free_claim(each.queue, each.key))
            freed += count
            audit.note(settings, "task unique --free", each.queue, count, key=each.key, owner=each.owner)
    if output.as_json:
        output.document({"key": args.key, "items": [_item(each) for each in held], "freed": freed})
    elif not held:
        output.message(f"no task holds the key {args.key!r}" + (f" in queue {args.queue!r}" if args.queue else ""))
    else:
        for each in held:
            _print(each, output)
        if args.free:
            output.line(f"freed the key in {freed:,} queue{'' if freed == 1 else 's'}; its task goes on as it was")
    return ExitCode.OK if held else ExitCode.NOTHING


def _item(held: HeldClaim) -> dict[str, Any]:
    return {
        "queue": held.queue,
        "key": held.key,
        "owner": held.owner,
        "claimedAt": iso_time(held.claimed_at),
        "expiresAt": iso_time(held.ends_at),
        "refusals": held.refusals,
        "duplicates": [{"taskId": each.id, "timestamp": iso_time(each.at)} for each in held.duplicates],
    }


def _print(held: HeldClaim, output: Output) -> None:
    output.fields(
        {
            "key": held.key,
            "queue": held.queue,
            "task": held.owner,
            "since": iso_time(held.claimed_at),
            "until": iso_time(held.ends_at) or "the task's end",
            "kept out": held.refusals,
            "last": iso_time(held.duplicates[-1].at) if held.duplicates else None,
        }
    )
