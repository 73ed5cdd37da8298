"""`stem worker ping | stats | inspect | revoke | shutdown`: commands to running workers, and what they answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stem_actors.app import Stem
from stem_actors.clock import SystemClock
from stem_actors.errors import UsageError
from stem_actors.fleet import Answers, Fleet
from stem_actors.model.control import ControlReply
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["inspect", "ping", "revoke", "shutdown", "stats"]


def ping(args: argparse.Namespace, output: Output) -> int:
    answers = _ask(args, "ping", {})
    rows = [(reply.worker_id, reply.status, _message(reply, reply.payload.get("timestamp"))) for reply in answers.replies]
    return _show(answers, output, lambda: output.table(("Worker", "Status", "Message"), rows))


def stats(args: argparse.Namespace, output: Output) -> int:
    answers = _ask(args, "stats", {})
    return _show(answers, output, lambda: _print_each(answers, output, _stats_lines))


def inspect(args: argparse.Namespace, output: Output) -> int:
    answers = _ask(args, "inspect", {"includeRevoked": args.include_revoked})
    return _show(answers, output, lambda: _print_each(answers, output, _inspect_lines))


def shutdown(args: argparse.Namespace, output: Output) -> int:
    answers = _ask(args, "shutdown", {"mode": args.mode})
    rows = [
        (reply.worker_id, _message(reply, reply.payload.get("status")), reply.payload.get("mode"), reply.payload.get("active"))
        for reply in answers.replies
    ]
    return _show(answers, output, lambda: output.table(("Worker", "Status", "Mode", "Active"), rows))


def revoke(args: argparse.Namespace, output: Output) -> int:
    """Stored first: that is what counts. Workers that do not answer find it in the store."""
    if not args.task:
        raise UsageError("name the tasks to revoke: --task ID, repeatable")
    lasts = duration_of(args.expires_in, "--expires-in")
    with _connected(args) as (app, fleet, timeout):
        stored = app.client.store_revocations(args.task, args.terminate, args.reason, args.requester, lasts)
        answers = fleet.ask("revoke", app.client.revoke_payload(stored, args.requester), args.worker, timeout)
    rows = [
        (reply.worker_id, _message(reply, reply.payload.get("revoked")), *(_joined(reply, name) for name in _REVOKED))
        for reply in answers.replies
    ]
    code = _show(answers, output, lambda: output.table(("Worker", "Revoked", *map(str.capitalize, _REVOKED)), rows), empty=False)
    if not answers.replies:
        output.message(f"{len(stored)} revoked; no worker has answered, and each will find it in the store when it is up")
        return ExitCode.OK
    return code


_REVOKED = ("inflight", "ignored", "expired")


# ---------------------------------------------------------------- asking


@contextmanager
def _connected(args: argparse.Namespace) -> Iterator[tuple[Stem, Fleet, float]]:
    settings = resolved(args).settings
    timeout = duration_of(args.timeout, "--timeout")
    if not timeout:
        raise UsageError("--timeout needs a duration longer than 0, such as 5s")
    with opened(settings) as app:
        yield app, Fleet(app.stores, settings.channel_namespace, SystemClock()), timeout


def _ask(args: argparse.Namespace, type: str, payload: Mapping[str, Any]) -> Answers:
    with _connected(args) as (_, fleet, timeout):
        return fleet.ask(type, payload, args.worker, timeout)


# ---------------------------------------------------------------- showing


def _show(answers: Answers, output: Output, show: Callable[[], None], empty: bool = True) -> int:
    """Print the replies, and say on stderr who did not answer; the exit code that this deserves."""
    if output.as_json:
        output.document([_document(reply) for reply in answers.replies])
    elif answers.replies:
        show()
    for worker in answers.silent:
        output.message(f"worker {worker} did not answer")
    if not answers.replies:
        if empty and not answers.silent:
            output.message("no worker answered: none is alive in this namespace, or none reaches this broker")
        return ExitCode.FAILED
    if any(reply.status != "ok" for reply in answers.replies):
        return ExitCode.FAILED
    return ExitCode.PARTIAL if answers.silent else ExitCode.OK


def _document(reply: ControlReply) -> dict[str, Any]:
    document: dict[str, Any] = {
        "requestId": reply.request_id,
        "workerId": reply.worker_id,
        "incarnation": reply.incarnation,
        "status": reply.status,
        "payload": reply.payload,
    }
    return document if reply.error is None else {**document, "error": reply.error}


def _message(reply: ControlReply, otherwise: Any) -> Any:
    return otherwise if reply.error is None else f"error: {reply.error.get('message')}"


def _joined(reply: ControlReply, name: str) -> str:
    return ", ".join(map(str, reply.payload.get(name) or ()))


def _print_each(answers: Answers, output: Output, lines: Callable[[Mapping[str, Any]], Sequence[str]]) -> None:
    for reply in answers.replies:
        output.line(f"{reply.worker_id} ({_message(reply, reply.status)})")
        for line in lines(reply.payload):
            output.line(f"  {line}")


def _stats_lines(payload: Mapping[str, Any]) -> list[str]:
    renewed = payload.get("lastLeaseRenewalMsAgo")
    reason = payload.get("readyReason")
    facts = {
        "namespace": payload.get("namespace"),
        "host": f"{payload.get('host')}, process {payload.get('pid')}",
        "state": f"{payload.get('state')}{f' ({reason})' if reason else ''}",
        "up for": readable_duration(payload.get("uptimeMs", 0) / 1000),
        "inflight": f"{payload.get('inflight')} of {payload.get('concurrency')} (prefetch {payload.get('prefetch')})",
        "timestamp": payload.get("timestamp"),
        "last lease renewal": None if renewed is None else f"{readable_duration(renewed / 1000)} ago",
        "queues": ", ".join(f"{name}={count}" for name, count in (payload.get("queues") or {}).items()),
        "subscribed": ", ".join((payload.get("subscriptions") or {}).get("queues") or ()),
    }
    return [f"{name}: {text}" for name, text in facts.items() if text] + [_run(run) for run in payload.get("active") or ()]


def _inspect_lines(payload: Mapping[str, Any]) -> list[str]:
    lines = [f"inflight: {payload.get('inflight')}", *(_run(run) for run in payload.get("active") or ())]
    for entry in payload.get("revoked") or ():
        by = f" by {entry['requestedBy']}" if entry.get("requestedBy") else ""
        lines.append(f"revoked {entry['taskId']}{by}{': ' + entry['reason'] if entry.get('reason') else ''}")
    return lines


def _run(run: Mapping[str, Any]) -> str:
    running = readable_duration(run.get("runtimeMs", 0) / 1000)
    return f"running {run.get('task')} {run.get('id')} (queue {run.get('queue')}, attempt {run.get('attempt')}, for {running})"
