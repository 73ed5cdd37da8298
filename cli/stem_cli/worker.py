"""`stem worker`: what the workers last said of themselves."""

from __future__ import annotations

import argparse
import time

from stem_actors.clock import SystemClock
from stem_actors.errors import UsageError
from stem_actors.ports import Stores
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.follow import Follower, Lines, LiveTable
from stem_cli.heartbeats import Beat
from stem_cli.output import Output

__all__ = ["status"]


def status(args: argparse.Namespace, output: Output) -> int:
    given = resolved(args)
    expected = duration_of(args.expected_interval, "--heartbeat-interval")
    default = given.settings.heartbeat_interval
    timeout = duration_of(args.timeout, "--timeout")
    if timeout is None:
        raise UsageError("--timeout needs a duration, such as 30s; 0 is for ever")

    def beats(stores: Stores) -> list[Beat]:
        now = stores.broker.now()
        found = [Beat.read(heartbeat, now, expected, default) for heartbeat in stores.heartbeats.list_heartbeats()]
        return [beat for beat in found if not args.worker or beat.worker_id in args.worker]

    with opened(given.settings) as app:
        stores = app.stores
        if not args.follow:
            return _print(beats(stores), output)
        if not output.is_live:
            return Follower(lambda: beats(stores), Lines(output), timeout, SystemClock(), time.sleep).run()
        with output.screen() as screen:
            return Follower(lambda: beats(stores), LiveTable(screen), timeout, SystemClock(), time.sleep).run()


def _print(beats: list[Beat], output: Output) -> int:
    for beat in beats:
        if output.as_json:
            output.json_line(beat.document)
        else:
            output.line("\n".join(beat.lines()))
    if not beats:
        output.message("no worker has sent a heartbeat lately")
    return ExitCode.OK
