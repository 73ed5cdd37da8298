"""`stem task`: the records of tasks, and their revocation."""

from __future__ import annotations

import argparse
import json
from typing import Any

from stem_actors.app import Handle, Stem
from stem_actors.codecs.msgpack import decode_payload
from stem_actors.errors import MalformedMessage, ResultsDisabled, UsageError
from stem_actors.model.json_names import iso_time
from stem_actors.model.lifecycle import TaskState
from stem_actors.model.record import TaskRecord
from stem_cli import control
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["list_tasks", "report_end", "revoke", "show", "task_json", "wait"]

_META_TIMES = frozenset({"startedAt", "completedAt", "failedAt", "expiredAt", "revokedAt", "lastReplayAt", "dispatchedAt"})


def show(args: argparse.Namespace, output: Output) -> int:
    with opened(resolved(args).settings) as app:
        record = app.handle(args.id).status()
    if output.as_json:
        output.document(task_json(record))
    else:
        _print_record(record, output)
    return ExitCode.OK


def list_tasks(args: argparse.Namespace, output: Output) -> int:
    if args.limit < 1 or args.offset < 0:
        raise UsageError("--limit is a number from 1, --offset from 0")
    state = None if args.state is None else TaskState(args.state)
    with opened(resolved(args).settings) as app:
        results = app.stores.results
        if results is None:
            raise ResultsDisabled("results are switched off (STEM_RESULT_BACKEND_URL=none), so there are no records to list")
        page = results.list_records(state, args.queue, args.limit, args.offset)
    items = [task_json(record) for record in page.items]
    if output.as_json:
        output.document({"items": items, "nextOffset": page.next_offset})
        return ExitCode.OK
    if items:
        output.table(("ID", "Task", "Queue", "State", "Attempt", "Updated", "Worker", "Error"), [_row(item) for item in items])
    else:
        output.message("no task has such a record (one that only waits has none: see `stem queue list`)")
    if page.next_offset is not None:
        output.message(f"there are more: --offset {page.next_offset}")
    return ExitCode.OK


def _row(item: dict[str, Any]) -> list[Any]:
    meta, error = item["meta"], item["error"]
    failure = None if error is None else f"{error['type']}: {error['message'].partition(chr(10))[0]}"
    common = [item["id"], meta.get("task"), meta.get("queue"), item["state"], item["attempt"], item["updatedAt"]]
    return [*common, meta.get("worker"), failure]


def wait(args: argparse.Namespace, output: Output) -> int:
    timeout = duration_of(args.timeout, "--timeout")
    with opened(resolved(args).settings) as app:
        return report_end(app.handle(args.id), app, timeout, output)


def revoke(args: argparse.Namespace, output: Output) -> int:
    """`stem worker revoke`, asked by one who thinks of tasks: of all workers, whichever has them."""
    return control.revoke(argparse.Namespace(**{**vars(args), "worker": []}), output)


def report_end(handle: Handle[Any], app: Stem, timeout: float | None, output: Output) -> int:
    """Wait for the end of a task and print its result, as JSON; what went wrong goes to stderr."""
    record = app.client.wait(handle.id, timeout)
    if record is None:
        output.message(f"task {handle.id} has not ended within {timeout:g} s; it may still do so")
        return ExitCode.FAILED
    document = task_json(record)
    if output.as_json:
        output.document(document)
    elif record.state is TaskState.SUCCEEDED:
        output.document(document["payload"])
    elif record.error is not None:
        output.message(f"task {handle.id} {record.state}: {record.error.type}: {record.error.message}")
    else:
        output.message(f"task {handle.id} {record.state}")
    return ExitCode.OK if record.state is TaskState.SUCCEEDED else ExitCode.NOTHING


def task_json(record: TaskRecord) -> dict[str, Any]:
    """A task's record as JSON has it."""
    error = record.error
    return {
        "id": record.id,
        "state": str(record.state),
        "attempt": record.attempt,
        "payload": _payload(record),
        "error": None
        if error is None
        else {
            "type": error.type,
            "message": error.message,
            "retryable": record.retryable,
            "meta": dict(error.meta),
            **({"stack": error.stack} if error.stack else {}),
        },
        "meta": {key: _meta_value(key, value) for key, value in record.meta.items()},
        "createdAt": iso_time(record.created_at or None),
        "updatedAt": iso_time(record.updated_at or None),
    }


def _payload(record: TaskRecord) -> Any:
    if record.payload is None:
        return None
    try:
        return decode_payload(record.payload)
    except MalformedMessage:
        return record.payload  # shown as base64: something is wrong with it, and what it is may help


def _meta_value(key: str, value: Any) -> Any:
    return iso_time(value / 1000) if key in _META_TIMES and isinstance(value, int | float) else value


def _print_record(record: TaskRecord, output: Output) -> None:
    document = task_json(record)
    meta = document["meta"]
    output.fields(
        {
            "id": record.id,
            "task": meta.get("task"),
            "queue": meta.get("queue"),
            "state": record.state,
            "attempt": record.attempt,
            "worker": meta.get("worker"),
            "created": document["createdAt"],
            "started": meta.get("startedAt"),
            "updated": document["updatedAt"],
            "result": json.dumps(document["payload"], default=repr) if record.payload is not None else None,
            "error": f"{record.error.type}: {record.error.message}" if record.error else None,
            "stack": record.error.stack if record.error else None,
        }
    )
