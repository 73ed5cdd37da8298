"""`stem dlq`: tasks that were set aside, and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from stem_actors.codecs.msgpack import decode_envelope
from stem_actors.errors import MalformedMessage, UsageError
from stem_actors.model.delivery import State
from stem_actors.model.envelope import Envelope
from stem_actors.model.json_names import iso_time, parse_time
from stem_actors.model.lapse import replay_record
from stem_actors.ports import Broker, DeadTask, Stores
from stem_cli import audit
from stem_cli.confirmation import confirm
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.interruption import Interruption
from stem_cli.output import Output, Progress

__all__ = ["list_entries", "oldest_first", "purge", "replay", "show"]

_QUOTED = 1024  # bytes of a body that cannot be read
_BATCH = 500  # dead letters in one step; between two of them Ctrl-C ends a command
_SHOWN = 10
_REPLAYED_BY_DEFAULT = 10
_TICK = 0.001  # seconds: as exactly as every store keeps a time


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


# ---------------------------------------------------------------- replay


def replay(args: argparse.Namespace, output: Output) -> int:
    """Choose, ask, and queue again exactly what was chosen, whatever has died in between."""
    with Interruption() as interruption:
        return _choose_and_replay(args, output, interruption)


def _choose_and_replay(args: argparse.Namespace, output: Output, interruption: Interruption) -> int:
    settings, since = resolved(args).settings, None if args.since is None else parse_time(args.since)
    limit = _limit(args, len(args.id) or _REPLAYED_BY_DEFAULT)
    delay = duration_of(args.delay, "--delay") or 0.0
    with opened(settings) as app:
        with output.progress(f"looking through the dead letters of {args.queue}") as progress:
            found = oldest_first(app.stores.broker, args.queue, since, args.id or None)
            chosen = list(islice((each for each in _read(found, progress) if _fits(each, args.task, args.reason)), limit))
        done = chosen
        if chosen and not args.dry_run:
            confirm(f"run {_counted(len(chosen))} of queue {args.queue!r} again", args.yes)
            done = []
            interruption.hold()
            try:
                with output.progress(f"replaying {_counted(len(chosen))}", len(chosen)) as progress:
                    for start in range(0, len(chosen), _BATCH):
                        batch = chosen[start : start + _BATCH]
                        done += _replay(app.stores, args.queue, [each["id"] for each in batch], delay)
                        progress.advance(len(batch))
                        if interruption.is_asked:
                            break
            finally:  # also when the broker goes away halfway
                audit.note(settings, "dlq replay", args.queue, len(done), delay=delay, ids=[each["id"] for each in done[:_SHOWN]])
    missing = _missing(args.id, chosen)
    if output.as_json:
        output.document(
            {"queue": args.queue, "dryRun": args.dry_run, "count": len(done), "delayMs": round(delay * 1000), "entries": done}
            | ({"missing": missing} if args.id else {})
        )
    else:
        _report(done, f"{'would replay' if args.dry_run else 'replayed'} {_counted(len(done))} of queue {args.queue!r}", output)
    if interruption.is_asked and len(done) < len(chosen):
        return _interrupted(len(done), len(chosen), output)
    return _code(args, missing, output)


def _replay(stores: Stores, queue: str, ids: Sequence[str], delay: float) -> list[dict[str, Any]]:
    entries = stores.broker.replay_dead_letters(queue, len(ids), ids=ids, delay=delay)
    if stores.results is not None and not stores.settles_results:
        # The broker cannot reach the records: they follow. A record that is newer by then, of the run after, stands.
        now = stores.broker.now()
        known = {entry.id: stores.results.get(entry.id) for entry in entries}
        stores.results.set_many(
            [
                replay_record(entry.id, queue, entry.state.replayed(now), entry.reason, delay, known[entry.id])
                for entry in entries
                if entry.state is not None
            ]
        )
    return [_summary(entry) for entry in entries]


def oldest_first(broker: Broker, queue: str, since: float | None, ids: Sequence[str] | None) -> Iterator[DeadTask]:
    """The dead letters of a queue in the order in which they are replayed, read a few at a time.

    Each page begins at the time the last one ended with, since many may have died at once; what it repeats is left out.
    """
    size, cursor, seen = _BATCH, since, set[tuple[str, float]]()
    while True:
        page = broker.replay_dead_letters(queue, size, cursor, ids, dry_run=True)
        fresh = [entry for entry in page if (entry.id, entry.dead_at) not in seen]
        yield from fresh
        if len(page) < size:
            return
        if not fresh:
            size *= 2  # more have died at one moment than fit a page
        last = page[-1].dead_at - _TICK
        cursor = last if cursor is None else max(cursor, last)
        seen = {(entry.id, entry.dead_at) for entry in page if entry.dead_at >= cursor - _TICK}


def _read(entries: Iterator[DeadTask], progress: Progress) -> Iterator[dict[str, Any]]:
    for entry in entries:
        progress.advance()
        yield _summary(entry)


def _fits(entry: dict[str, Any], task: str | None, reason: str | None) -> bool:
    return task in (None, entry["task"]) and reason in (None, entry["reason"])


def _report(entries: Sequence[dict[str, Any]], text: str, output: Output) -> None:
    output.line(text)
    if entries:
        columns = ("id", "task", "attempt", "reason")
        output.table(("ID", "Task", "Attempts", "Reason"), [[entry[name] for name in columns] for entry in entries[:_SHOWN]])
    if len(entries) > _SHOWN:
        output.line(f"and {len(entries) - _SHOWN:,} more")


# ---------------------------------------------------------------- purge


def purge(args: argparse.Namespace, output: Output) -> int:
    """Count, ask, and remove; the newest of those that fit when there is a limit."""
    with Interruption() as interruption:
        return _count_and_purge(args, output, interruption)


def _count_and_purge(args: argparse.Namespace, output: Output, interruption: Interruption) -> int:
    settings, since = resolved(args).settings, None if args.since is None else parse_time(args.since)
    limit, ids = _limit(args, None), args.id or None
    with opened(settings) as app:
        broker = app.stores.broker
        found = [entry.id for entry in oldest_first(broker, args.queue, since, ids)] if ids else []
        there = len(found) if ids else _count(broker, args.queue, since)
        wanted = there if limit is None else min(limit, there)
        removed = wanted if args.dry_run else 0
        if wanted and not args.dry_run:
            confirm(f"remove {_counted(wanted)} of queue {args.queue!r} for good", args.yes)
            interruption.hold()
            try:
                with output.progress(f"removing {_counted(wanted)}", wanted) as progress:
                    while removed < wanted and not interruption.is_asked:
                        count = broker.purge_dead_letters(args.queue, min(_BATCH, wanted - removed), since, ids)
                        if count == 0:
                            break
                        removed += count
                        progress.advance(count)
            finally:
                audit.note(settings, "dlq purge", args.queue, removed, since=args.since, ids=args.id[:_SHOWN])
    missing = [each for each in args.id if each not in found]
    if output.as_json:
        output.document(
            {"queue": args.queue, "dryRun": args.dry_run, "count": removed} | ({"missing": missing} if args.id else {})
        )
    else:
        output.line(f"{'would remove' if args.dry_run else 'removed'} {_counted(removed)} of queue {args.queue!r}")
    if interruption.is_asked and removed < wanted:
        return _interrupted(removed, wanted, output)
    return _code(args, missing, output)


def _count(broker: Broker, queue: str, since: float | None) -> int:
    """How many there are, without reading them all: the first offset with nothing behind it."""
    there = sum(depth.dead for depth in broker.depths([queue]))
    if since is None:
        return there
    low, high = 0, there
    while low < high:
        middle = (low + high) // 2
        if broker.dead_letters(queue, 1, middle, since).entries:
            low = middle + 1
        else:
            high = middle
    return low


# ---------------------------------------------------------------- both


def _limit(args: argparse.Namespace, default: int | None) -> int | None:
    if args.limit is not None and args.limit < 1:
        raise UsageError("--limit is a number from 1")
    return default if args.limit is None else int(args.limit)


def _counted(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def _missing(ids: Sequence[str], found: Sequence[dict[str, Any]]) -> list[str]:
    known = {entry["id"] for entry in found}
    return [each for each in ids if each not in known]


def _interrupted(done: int, wanted: int, output: Output) -> int:
    output.message(f"interrupted after {_counted(done)} of {wanted:,}; the others are as they were")
    return ExitCode.INTERRUPTED


def _code(args: argparse.Namespace, missing: Sequence[str], output: Output) -> int:
    """0; 1 when some of the ids that were asked for are not there."""
    if missing and not output.as_json:
        output.message(f"not among the dead letters of queue {args.queue!r}, or not chosen: {', '.join(missing)}")
    return ExitCode.NOTHING if missing else ExitCode.OK


# ---------------------------------------------------------------- as JSON


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
        "replayCount": state.replay_count,
        "lastReplayAt": iso_time(state.last_replay_at),
        "maxRetries": envelope.max_retries,
        "visibilityTimeout": None if visibility is None else round(visibility * 1000),
        "queue": envelope.queue,
        "meta": envelope.meta,
    }
