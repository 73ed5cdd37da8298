"""`stem dlq`: tasks that were set aside, and why."""

from __future__ import annotations

import argparse
from typing import Any

from stem_actors.codecs.msgpack import decode_envelope
from stem_actors.errors import MalformedMessage, UsageError
from stem_actors.model.delivery import State
from stem_actors.model.envelope import Envelope
from stem_actors.model.json_names import iso_time, parse_time
from stem_actors.ports import DeadTask
from stem_cli.connection import opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["list_entries", "show"]

_QUOTED = 1024  # bytes of a body that cannot be read


def list_entries(args: argparse.Namespace, output: Output) -> int:
    if args.limit < 1 or args.offset < 0:
        raise UsageError("--limit is a number from 1, --offset from 0")
    since = None if args.since is None else parse_time(args.since)
    with opened(resolved(args).settings) as app:
        page = app.stores.broker.dead_letters(args.queue, args.limit, args.offset, since)
    entries = [_summary(entry) for entry in page.entries]
    if output.as_json:
        output.document({"entries": entries, "nextOffset": page.next_offset})
        return ExitCode.OK
    if entries:
        columns = ("id", "task", "attempt", "deadAt", "reason")
        output.table(("ID", "Task", "Attempts", "DeadAt", "Reason"), [[entry[column] for column in columns] for entry in entries])
    else:
        output.message(f"queue {args.queue!r} has no dead letters")
    if page.next_offset is not None:
        output.message(f"there are more: --offset {page.next_offset}")
    return ExitCode.OK


def show(args: argparse.Namespace, output: Output) -> int:
    with opened(resolved(args).settings) as app:
        entry = app.stores.broker.dead_letter(args.queue, args.id)
    if entry is None:
        output.message(f"queue {args.queue!r} has no dead letter {args.id}")
        return ExitCode.NOTHING
    envelope = _envelope(entry)
    document: dict[str, Any] = {
        "queue": entry.queue,
        "deadAt": iso_time(entry.dead_at),
        "reason": entry.reason,
        "meta": dict(entry.meta),
        "envelope": None if envelope is None else _envelope_json(envelope, entry.state or State()),
    }
    if envelope is None:
        document["bodyHex"] = entry.body[:_QUOTED].hex()
    output.document(document)
    return ExitCode.OK


def _summary(entry: DeadTask) -> dict[str, Any]:
    envelope, state = _envelope(entry), entry.state or State()
    return {
        "id": entry.id,
        "task": None if envelope is None else envelope.name,
        "queue": entry.queue,
        "attempt": state.attempt,
        "deaths": len(state.deaths),
        "deadAt": iso_time(entry.dead_at),
        "reason": entry.reason,
    }


def _envelope(entry: DeadTask) -> Envelope | None:
    """The envelope, or None: a message that cannot be read is set aside, too."""
    try:
        return decode_envelope(entry.body, max_bytes=len(entry.body))
    except MalformedMessage:
        return None


def _envelope_json(envelope: Envelope, state: State) -> dict[str, Any]:
    visibility = envelope.visibility_timeout
    return {
        "id": envelope.id,
        "name": envelope.name,
        "args": envelope.args,
        "kwargs": envelope.kwargs,
        "headers": envelope.headers,
        "enqueuedAt": iso_time(envelope.enqueued_at),
        "notBefore": iso_time(state.not_before),
        "expiresAt": iso_time(envelope.expires_at),
        "priority": envelope.priority,
        "attempt": state.attempt,
        "deaths": list(state.deaths),
        "maxRetries": envelope.max_retries,
        "visibilityTimeout": None if visibility is None else round(visibility * 1000),
        "queue": envelope.queue,
        "meta": envelope.meta,
    }
