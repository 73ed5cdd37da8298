"""`stem worker ping | stats | inspect | revoke | pause | resume | concurrency | shutdown`: commands to running workers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stem_actors.app import Stem
from stem_actors.clock import SystemClock
from stem_actors.config import WORD, read_value
from stem_actors.errors import UsageError
from stem_actors.fleet import Answers, Fleet
from stem_actors.model.control import ControlReply
from stem_cli.connection import duration_of, opened, resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output, readable_duration

__all__ = ["change_pauses", "concurrency", "inspect", "pause", "ping", "resume", "revoke", "shutdown", "stats"]


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
        app.stores.revocations.prune_expired()
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


def pause(args: argparse.Namespace, output: Output) -> int:
    return _pause(args, output, is_paused=True)


def resume(args: argparse.Namespace, output: Output) -> int:
    return _pause(args, output, is_paused=False)


def _pause(args: argparse.Namespace, output: Output, is_paused: bool) -> int:
    """Stored first, as with revocations. But this is asked of workers, so one at least has to answer."""
    if not args.queue:
        raise UsageError(f"name the queues to {'pause' if is_paused else 'resume'}: --queue QUEUE, repeatable")
    answers = change_pauses(args, args.queue, is_paused, args.worker)
    rows = [
        (reply.worker_id, _message(reply, reply.status), _joined(reply, "updated"), _joined(reply, "paused"))
        for reply in answers.replies
    ]
    if not answers.replies:
        output.message(f"{'paused' if is_paused else 'resumed'} in the store, where every worker finds it when it is up")
    return _show(answers, output, lambda: output.table(("Worker", "Status", "Updated", "Paused queues"), rows))


def change_pauses(args: argparse.Namespace, queues: Sequence[str], is_paused: bool, workers: Sequence[str] | None) -> Answers:
    """Store that queues are paused, or not any more, and tell the workers; `workers` None: nobody needs to answer."""
    names = [read_value(WORD, queue, "the queue") for queue in queues]
    reason = args.reason or f"queue {'paused' if is_paused else 'resumed'} by stem-cli"
    with _connected(args) as (app, fleet, timeout):
        if is_paused:
            app.stores.pauses.pause(names, reason, args.requester)
        else:
            app.stores.pauses.resume(names)
        if workers is None and not fleet.alive():
            return Answers("", (), ())
        payload = {"namespace": app.settings.namespace, "queues": names, "reason": reason, "requester": args.requester}
        return fleet.ask("queue_pause" if is_paused else "queue_resume", payload, workers or (), timeout)


def concurrency(args: argparse.Namespace, output: Output) -> int:
    if args.executors < 1:
        raise UsageError("the concurrency of a worker is a number from 1")
    answers = _ask(args, "set_concurrency", {"value": args.executors})
    rows = [
        (reply.worker_id, _message(reply, reply.status), reply.payload.get("was"), reply.payload.get("concurrency"))
        for reply in answers.replies
    ]
    return _show(answers, output, lambda: output.table(("Worker", "Status", "Was", "Concurrency"), rows))


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
        "paused": ", ".join(payload.get("pausedQueues") or ()),
        "subscribed": ", ".join((payload.get("subscriptions") or {}).get("queues") or ()),
    }
    return [f"{name}: {text}" for name, text in facts.items() if text] + [_run(run) for run in payload.get("active") or ()]


def _inspect_lines(payload: Mapping[str, Any]) -> list[str]:
    lines = [f"inflight: {payload.get('inflight')}", *(_run(run) for run in payload.get("active") or ())]
    lines += [f"paused: {', '.join(queues)}" for queues in [payload.get("pausedQueues")] if queues]
    for entry in payload.get("revoked") or ():
        by = f" by {entry['requestedBy']}" if entry.get("requestedBy") else ""
        lines.append(f"revoked {entry['taskId']}{by}{': ' + entry['reason'] if entry.get('reason') else ''}")
    return lines


def _run(run: Mapping[str, Any]) -> str:
    running = readable_duration(run.get("runtimeMs", 0) / 1000)
    return f"running {run.get('task')} {run.get('id')} (queue {run.get('queue')}, attempt {run.get('attempt')}, for {running})"
