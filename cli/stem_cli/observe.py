"""`stem observe queues | workers | dlq`: what the stores hold now, or what a snapshot in a file held."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from stem_actors.errors import UsageError
from stem_actors.model.json_names import iso_time, parse_time
from stem_actors.ports import Broker, DeadTask
from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration
from stem_cli.watched import Watched, watch

__all__ = ["dead_letters", "queues", "workers"]

_MOST = 1000  # dead letters shown
_PAGE = 200
_PAGES = 10  # of one queue


def queues(args: argparse.Namespace, output: Output) -> int:
    found = _found(args, "queues", lambda broker, seen: [queue.as_json() for queue in seen.queues])
    columns = ("Queue", "Pending", "Inflight", "Delayed", "Dead", "Oldest", "Per second", "Paused")
    counts = ("queue", "pending", "inflight", "delayed", "dead")
    rows = [
        (*(each[name] for name in counts), _age(each["oldestMs"]), each["perSecond"], "yes" if each["paused"] else None)
        for each in found
    ]
    return _show(found, columns, rows, "there is no queue", output)


def workers(args: argparse.Namespace, output: Output) -> int:
    found = _found(args, "workers", lambda broker, seen: [_worker(seen, index) for index in range(len(seen.beats))])
    rows = [
        (each["id"], each["active"], f"{each['lastHeartbeat'] or ''}{' (stale)' if each.get('stale') else ''}") for each in found
    ]
    return _show(found, ("Worker", "Active", "Last Heartbeat"), rows, "no worker has sent a heartbeat lately", output)


def dead_letters(args: argparse.Namespace, output: Output) -> int:
    found = _found(args, "dlq", _dead)
    rows = [(each["queue"], each["taskId"], each["reason"]) for each in found]
    code = _show(found, ("Queue", "Task ID", "Reason"), rows, "there are no dead letters", output)
    if len(found) >= _MOST:
        output.message(f"these are {_MOST:,}; `stem dlq list --queue QUEUE` pages through all of a queue")
    return code


def _show(
    found: Sequence[Mapping[str, Any]], columns: Sequence[str], rows: Sequence[Sequence[Any]], nothing: str, output: Output
) -> int:
    if output.as_json:
        output.document(found)
    elif found:
        output.table(columns, rows)
    else:
        output.message(nothing)
    return ExitCode.OK


def _found(args: argparse.Namespace, kind: str, read: Callable[[Broker, Watched], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if args.file is not None:
        return _read_file(Path(args.file), kind)
    settings = resolved(args).settings
    with opened(settings) as app:
        return read(app.stores.broker, watch(app.stores, settings))


# ---------------------------------------------------------------- from the stores


def _worker(seen: Watched, index: int) -> dict[str, Any]:
    beat = seen.beats[index]
    return {
        "id": beat.worker_id,
        "active": beat.document.get("isolateCount", 0),
        "lastHeartbeat": iso_time(beat.sent_at),
        "stale": beat.is_stale,
        "state": beat.extras.get("state"),
    }


def _dead(broker: Broker, seen: Watched) -> list[dict[str, Any]]:
    """The newest of each queue, as many as a person can look at."""
    found: list[DeadTask] = []
    for queue in seen.queues:
        offset: int | None = 0
        for _ in range(_PAGES if queue.depth.dead else 0):
            if offset is None or len(found) >= _MOST:
                break
            page = broker.dead_letters(queue.depth.queue, _PAGE, offset)
            found += page.entries
            offset = page.next_offset
    return [
        {"queue": dead.queue, "taskId": dead.id, "reason": dead.reason, "deadAt": iso_time(dead.dead_at)}
        for dead in islice(found, _MOST)
    ]


# ---------------------------------------------------------------- from a file

_ENTRIES: Mapping[str, Mapping[str, Any]] = {
    "queues": {
        "queue": "",
        "pending": 0,
        "inflight": 0,
        "delayed": 0,
        "dead": 0,
        "oldestMs": None,
        "paused": False,
        "perSecond": None,
    },
    "workers": {"id": "", "active": 0, "lastHeartbeat": None},
    "dlq": {"queue": "", "taskId": "", "reason": None, "deadAt": None},
}
"""The entries of a snapshot, with what one that leaves something out means. What stands here as a text is required."""


def _read_file(path: Path, kind: str) -> list[dict[str, Any]]:
    """The entries of a snapshot; a file that is not there holds none.

    Raises:
        UsageError: the file is no snapshot.
    """
    try:
        snapshot = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UsageError(f"--file {path} cannot be read as JSON: {error}") from None
    entries = snapshot.get(kind, []) if isinstance(snapshot, dict) else None
    if not isinstance(entries, list):
        raise UsageError(f"--file {path} is no snapshot: an object with a list {kind!r} is expected")
    return [_entry(path, kind, each) for each in entries]


def _entry(path: Path, kind: str, entry: Any) -> dict[str, Any]:
    usual = _ENTRIES[kind]
    missing = [name for name, value in usual.items() if value == "" and not (isinstance(entry, dict) and entry.get(name))]
    if missing:
        raise UsageError(f"--file {path} is no snapshot: an entry of {kind!r} has no {missing[0]!r}")
    found = {**usual, **entry}
    for name in ("lastHeartbeat", "deadAt"):
        if isinstance(found.get(name), str):
            found[name] = iso_time(parse_time(found[name]))
    return found


def _age(milliseconds: Any) -> str | None:
    return readable_duration(milliseconds / 1000) if isinstance(milliseconds, int | float) else None
