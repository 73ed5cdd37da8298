"""`stem worker`: what the workers last said of themselves."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from stem_actors.model.json_names import iso_time, parse_time, to_json
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["status"]


def status(args: argparse.Namespace, output: Output) -> int:
    given = resolved(args)
    expected = duration_of(args.expected_interval, "--heartbeat-interval") or given.settings.heartbeat_interval
    with opened(given.settings) as app:
        now = app.stores.broker.now()
        heartbeats = [to_json(each) for each in app.stores.heartbeats.list_heartbeats()]
    shown = [each for each in heartbeats if not args.worker or each.get("workerId") in args.worker]
    for heartbeat in shown:
        if output.as_json:
            output.json_line({**heartbeat, "timestamp": _iso(heartbeat.get("timestamp"))})
        else:
            _print(heartbeat, now, expected, output)
    if not shown:
        output.message("no worker has sent a heartbeat lately")
    return ExitCode.OK


def _print(heartbeat: Mapping[str, Any], now: float, expected: float, output: Output) -> None:
    extras: Mapping[str, Any] = heartbeat.get("extras") or {}
    sent = _seconds(heartbeat.get("timestamp"))
    age = 0.0 if sent is None else max(0.0, now - sent)
    stale = f" [stale {readable_duration(age)}]" if expected and age > expected else ""
    output.line(
        f"Worker {heartbeat.get('workerId')} (namespace: {heartbeat.get('namespace')}) @ {_iso(heartbeat.get('timestamp'))} "
        f"isolate={heartbeat.get('isolateCount', 0)} inflight={heartbeat.get('inflight', 0)}{stale}"
    )
    subscriptions = extras.get("subscriptions") or {}
    renewed = _seconds(heartbeat.get("lastLeaseRenewal"))
    details = {
        "state": _state(extras),
        "queues": ", ".join(subscriptions.get("queues") or ()),
        "broadcasts": ", ".join(subscriptions.get("broadcasts") or ()),
        "lastLeaseRenewal": None if renewed is None else f"{readable_duration(now - renewed)} ago",
        "inflight": ", ".join(f"{each['name']}={each['inflight']}" for each in heartbeat.get("queues") or ()),
    }
    for name, text in details.items():
        if text:
            output.line(f"  {name}: {text}")


def _state(extras: Mapping[str, Any]) -> str | None:
    reason = extras.get("readyReason")
    state = extras.get("state")
    return None if state is None else f"{state} ({reason})" if reason else str(state)


def _seconds(time: Any) -> float | None:
    """A time of a heartbeat in seconds: it may be milliseconds since the epoch or ISO-8601."""
    if isinstance(time, str):
        return parse_time(time)
    return time / 1000 if isinstance(time, int | float) else None


def _iso(time: Any) -> str | None:
    return iso_time(_seconds(time))
