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
from stem_cli.watched import read_beats

__all__ = ["status"]


def status(args: argparse.Namespace, output: Output) -> int:
    given = resolved(args)
    expected = duration_of(args.expected_interval, "--heartbeat-interval")
    timeout = duration_of(args.timeout, "--timeout")
    if timeout is None:
        raise UsageError("--timeout needs a duration, such as 30s; 0 is for ever")

    def beats(stores: Stores) -> list[Beat]:
        found = read_beats(stores, stores.broker.now(), given.settings, expected)
        return [beat for beat in found if not args.worker or beat.worker_id in args.worker]

    with opened(given.settings) as app:
        stores = app.stores
        if not args.follow:
            return _print(beats(stores), args.worker, output)
        if not output.is_live:
            return Follower(lambda: beats(stores), Lines(output), timeout, SystemClock(), time.sleep).run()
        with output.screen() as screen:
            return Follower(lambda: beats(stores), LiveTable(screen), timeout, SystemClock(), time.sleep).run()


def _print(beats: list[Beat], named: list[str], output: Output) -> int:
    for beat in beats:
        if output.as_json:
            output.json_line(beat.as_json())
        else:
            output.line("\n".join(beat.lines()))
    if not beats and not named:
        output.message("no worker has sent a heartbeat lately")
    for silent in sorted(set(named) - {beat.worker_id for beat in beats}):
        output.message(f"worker {silent} has sent no heartbeat lately")
    return ExitCode.OK
