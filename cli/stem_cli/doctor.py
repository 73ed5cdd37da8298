"""`stem doctor`: all that health checks and diagnoses know, and what only both together show, each with its remedy."""

from __future__ import annotations

import argparse
import platform
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version

from stem_actors.adapters import is_same_place
from stem_actors.config import RESULTS_OFF, Settings
from stem_actors.errors import ConfigError, StemError, UsageError
from stem_actors.ports import QueueDepth
from stem_cli.checks import Check, Level, failed, fine, print_checks, warned
from stem_cli.connection import duration_of, load_apps, opened
from stem_cli.diagnose import descriptor_check, environment_of, of_finding, process_checks, settings_checks
from stem_cli.exit_codes import ExitCode
from stem_cli.handshake import handshake_check
from stem_cli.heartbeats import Beat
from stem_cli.output import Output, readable_duration
from stem_cli.round_trips import Finding, check_stores
from stem_cli.server_facts import endpoint_of

__all__ = ["run"]

_LIBRARIES = ("stem-actors", "redis", "hiredis", "msgpack", "pykka", "psutil")
_NAMED = 5  # queues or workers named in one line


def run(args: argparse.Namespace, output: Output) -> int:
    timeout = duration_of(args.timeout, "--timeout")
    if not timeout:
        raise UsageError("--timeout needs a duration above 0, such as 5s")
    checks, environ = environment_of(args)
    settings, more = settings_checks(args, environ)
    checks += more
    checks += process_checks(args.pidfile, args.logfile, timeout)
    if settings is not None:
        with output.progress("looking at the stores"):
            checks += _of_settings(settings, timeout, args.pidfile)
    print_checks(checks, output)
    if settings is None:
        return ExitCode.USAGE
    return ExitCode.FAILED if any(check.level is Level.ERROR for check in checks) else ExitCode.OK


def _of_settings(settings: Settings, timeout: float, pidfile: str | None) -> Iterator[Check]:
    try:
        found = check_stores(settings, timeout, skip_backend=False)
    except ConfigError as error:
        found = [Finding("broker", False, str(error), hints=("compare with `stem config show`",))]
    yield _versions(found)
    yield from map(of_finding, found)
    yield from _handshakes(settings, found, timeout)
    yield _lease_check(settings)
    yield descriptor_check(settings, pidfile)
    if all(finding.is_well for finding in found if finding.component in ("broker", "heartbeats")):
        yield from _traffic(settings)
    yield from _application(settings)


def _versions(found: Sequence[Finding]) -> Check:
    """What is in play; a bug report begins with this."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    versions["sqlite"] = sqlite3.sqlite_version
    servers = {finding.component: str(finding.store["version"]) for finding in found if "version" in finding.store}
    said = ", ".join(f"{name} {number}" for name, number in {**versions, **servers}.items())
    return fine("versions", said, **versions, servers=servers)


def _handshakes(settings: Settings, found: Sequence[Finding], timeout: float) -> Iterator[Check]:
    urls = {"broker": settings.broker_url}
    others = {"backend": settings.result_backend_url, "revocations": settings.revoke_store_url}
    for component, url in others.items():
        if url not in (None, RESULTS_OFF) and not any(is_same_place(url, each) for each in urls.values()):
            urls[component] = url
    well = {finding.component for finding in found if finding.is_well}
    for component, url in urls.items():
        endpoint = endpoint_of(url, settings) if component in well else None
        check = handshake_check(component, endpoint, timeout) if endpoint is not None and endpoint.is_tls else None
        if check is not None:
            yield check


def _lease_check(settings: Settings) -> Check:
    """A node renews leases while it leaves. If the broker is away just then, only their length protects what still runs."""
    grace = settings.drain_timeout + settings.soft_grace_period
    lease = settings.visibility_timeout
    said = (
        f"a lease lasts {readable_duration(lease)}; a node that leaves lets tasks run for {readable_duration(grace)} "
        f"(drain {readable_duration(settings.drain_timeout)}, grace {readable_duration(settings.soft_grace_period)})"
    )
    facts = {"visibilityTimeout": lease, "drainTimeout": settings.drain_timeout, "softGracePeriod": settings.soft_grace_period}
    if lease < grace:
        remedy = (
            "where the broker is away while a node leaves, others may begin what still runs there: raise --visibility-timeout to "
            f"{readable_duration(grace)} or more, or lower --drain-timeout"
        )
        return warned("leases", said, remedy, **facts)
    return fine("leases", f"{said}; give it {readable_duration(grace + 15)} before it is killed", **facts)


# ---------------------------------------------------------------- what goes on in the stores


def _traffic(settings: Settings) -> Iterator[Check]:
    try:
        with opened(settings) as app:
            stores = app.stores
            depths, now = stores.broker.depths(), stores.broker.now()
            beats = [
                Beat.read(heartbeat, now, None, settings.heartbeat_interval) for heartbeat in stores.heartbeats.list_heartbeats()
            ]
    except StemError as error:
        yield failed("queues", str(error), "see the checks of the broker")
        return
    yield _workers(beats)
    yield _consumers(beats, depths)
    yield _dead_letters(depths)


def _workers(beats: Sequence[Beat]) -> Check:
    if not beats:
        return fine("workers", "none is alive", alive=0)
    stale = {beat.worker_id: f"not heard of for {readable_duration(beat.age)}" for beat in beats if beat.is_stale}
    unwell = {
        beat.worker_id: beat.state or "" for beat in beats if beat.worker_id not in stale and beat.extras.get("state") == "stuck"
    }
    facts = {"alive": len(beats), "unwell": {**stale, **unwell}}
    if stale or unwell:
        said = _listed([f"{worker}: {state}" for worker, state in {**stale, **unwell}.items()])
        remedy = "see their logs; a host that died is forgotten after a minute"
        return warned("workers", f"{len(stale) + len(unwell)} of {len(beats)} are not well: {said}", remedy, **facts)
    return fine("workers", f"{len(beats)} {'is' if len(beats) == 1 else 'are'} alive and well", **facts)


def _consumers(beats: Sequence[Beat], depths: Sequence[QueueDepth]) -> Check:
    worked_on = _worked_on(beats)
    waiting = {depth.queue: depth.pending for depth in depths if depth.pending and depth.queue not in worked_on}
    if waiting:
        said = _listed([f"{count} in {queue}" for queue, count in waiting.items()])
        flags = " ".join(f"--queue {queue}" for queue in list(waiting)[:_NAMED])
        remedy = f"start a node that works on them: stem-node … {flags}; or empty one: stem queue purge QUEUE"
        return warned("queues", f"tasks wait where no live worker fetches: {said}", remedy, withoutWorkers=waiting)
    ready = sum(depth.pending for depth in depths)
    return fine("queues", f"every queue with work has a worker ({ready} ready)" if ready else "no task waits", withoutWorkers={})


def _dead_letters(depths: Sequence[QueueDepth]) -> Check:
    dead = {depth.queue: depth.dead for depth in depths if depth.dead}
    if not dead:
        return fine("dead-letters", "none", dead={})
    said = _listed([f"{count} in {queue}" for queue, count in dead.items()])
    queue = next(iter(dead))
    return warned("dead-letters", said, f"look why: stem dlq list --queue {queue}; then replay or purge them", dead=dead)


def _worked_on(beats: Sequence[Beat]) -> set[str]:
    return {
        str(queue)
        for beat in beats
        if not beat.is_stale
        for queue in (beat.extras.get("subscriptions") or {}).get("queues") or ()
    }


def _application(settings: Settings) -> Iterator[Check]:
    """What its modules define; for an application that is named."""
    if settings.app is None and not settings.tasks:
        return
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not our output
            apps = load_apps(settings)
    except ConfigError as error:
        yield failed("application", str(error), "it is imported from the working directory: run this where nodes run")
        return
    tasks = {task.name: task.options.queue or settings.default_queue for app in apps for task in app.registry}
    facts: Mapping[str, object] = {"tasks": len(tasks), "queues": sorted(set(tasks.values()))}
    if not tasks:
        yield warned("application", "it defines no tasks", "import the modules that do, or name them in STEM_TASKS", **facts)
    else:
        yield fine("application", f"{len(tasks)} tasks in {_listed(sorted(set(tasks.values())))}", **facts)


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
