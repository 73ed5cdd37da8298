"""`stem worker multi`: starts, stops, restarts and looks at the nodes of this host, each with a pid file and a log file."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stem_actors.config import resolve
from stem_actors.errors import ConfigError, OperatorError, UsageError
from stem_cli import environment_file
from stem_cli.connection import duration_of
from stem_cli.exit_codes import ExitCode
from stem_cli.node_plans import Plan, plans_of
from stem_cli.output import Output, readable_duration
from stem_cli.pid_file import ProcessMark

__all__ = ["run"]

_PATIENCE = 30.0
_MARGIN = 5.0  # seconds that a node may need beyond what it gives its tasks
_AFTER_KILL = 5.0
_FIRST_LOOK = 1.0  # seconds: who ends sooner never really started
_BY_SIGNAL = 128


@dataclass(frozen=True, slots=True)
class _Report:
    """What came of an action on one node. `note` is for people."""

    plan: Plan
    status: str
    note: str
    pid: int | None = None
    code: int = ExitCode.OK


def run(args: argparse.Namespace, output: Output) -> int:
    given = environment_file.read(args.env_file) if args.env_file else environment_file.EnvironmentFile({})
    for problem in given.problems:
        output.message(f"{problem}: left out")
    environ = {**os.environ, **given.values}
    environ.pop("STEM_PIDFILE", None)  # each node has one of its own
    plans = plans_of(args, environ)
    if args.action == "start" and (args.foreground or not args.detach):
        return _run_in_foreground(plans, args.logfile is not None, output)
    patience = _patience(args, plans)
    reports = []
    for report in _act(args.action, plans, patience):
        reports.append(report)
        if not output.as_json:
            show = output.message if report.code in (ExitCode.NOTHING, ExitCode.FAILED) else output.line
            show(f"{report.plan.name}: {report.note}")
    if output.as_json:
        output.document([_document(report) for report in reports])
    return next((report.code for report in reversed(reports) if report.code), ExitCode.OK)


def _act(action: str, plans: Sequence[Plan], patience: float) -> Iterator[_Report]:
    match action:
        case "start":
            yield from map(_start, plans)
        case "stop":
            yield from _stop(plans, patience)
        case "restart":
            yield from (_restart(plan, patience) for plan in plans)
        case _:
            yield from map(_status, plans)


def _document(report: _Report) -> dict[str, object]:
    return {
        "node": report.plan.name,
        "status": report.status,
        "pid": report.pid,
        "pidfile": str(report.plan.pid_file.path),
        "logfile": str(report.plan.log_file),
        "message": report.note,
        "exitCode": int(report.code),
    }


def _patience(args: argparse.Namespace, plans: Sequence[Plan]) -> float:
    """Seconds to wait for a node that was told to leave; unless told, what its tasks may need."""
    given = duration_of(args.timeout, "--timeout")
    if given is not None:
        return given
    try:
        settings = resolve({}, plans[0].environ).settings
    except ConfigError:  # also a node that could not be started again can be stopped
        return _PATIENCE
    return max(_PATIENCE, settings.drain_timeout + settings.soft_grace_period + _MARGIN)


# ---------------------------------------------------------------- starting


class _RunsAlready(Exception):
    """Its pid file names a living process."""

    def __init__(self, mark: ProcessMark) -> None:
        self.note = f"runs already (pid {mark.pid}); nothing was started"
        self.pid = mark.pid


def _start(plan: Plan) -> _Report:
    said_before = _size(plan.log_file)
    try:
        popen, mark = _launch(plan, to_log=True, process_group=None, start_new_session=True)
    except _RunsAlready as found:
        return _Report(plan, "running", found.note, found.pid, ExitCode.NOTHING)
    except OperatorError as error:
        return _Report(plan, "failed", str(error), code=ExitCode.FAILED)
    try:
        code = popen.wait(_FIRST_LOOK)
    except subprocess.TimeoutExpired:
        return _Report(plan, "started", f"started, pid {popen.pid}", popen.pid)
    plan.pid_file.remove(mark)
    if code == 0:
        return _Report(plan, "ended", "started, and has ended well already")
    note = f"ended at once with {_ending(code)}, see {plan.log_file}: {_last_line(plan.log_file, said_before)}"
    return _Report(plan, "failed", note, code=ExitCode.FAILED)


def _run_in_foreground(plans: Sequence[Plan], to_log: bool, output: Output) -> int:
    """Run one node until it ends, and pass signals on to it; its exit code."""
    if len(plans) != 1:
        raise UsageError("one node at a time runs in the foreground")
    (plan,) = plans
    early: list[int] = []
    deliver: Callable[[int], None] = early.append

    def pass_on(number: int, _frame: object) -> None:
        deliver(signal.SIGTERM if number == signal.SIGHUP else number)  # a terminal that is gone is a reason to leave, too

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        # In a group of its own, or it would hear a Ctrl-C from the terminal and from us.
        popen, mark = _launch(plan, to_log=to_log, process_group=0, start_new_session=False)
    except _RunsAlready as found:
        output.message(f"{plan.name}: {found.note}")
        return ExitCode.NOTHING
    deliver = popen.send_signal
    for each in early:
        popen.send_signal(each)
    output.message(f"{plan.name}: started, pid {popen.pid}")
    code = popen.wait()
    plan.pid_file.remove(mark)
    return code if code >= 0 else _BY_SIGNAL - code


def _launch(
    plan: Plan, to_log: bool, process_group: int | None, start_new_session: bool
) -> tuple[subprocess.Popen[bytes], ProcessMark]:
    """Start the process and write its pid file; nobody else can do so meanwhile.

    Raises:
        _RunsAlready: it is there.
        OperatorError: it cannot be started, or a file cannot be written.
    """
    if not plan.directory.is_dir():
        raise OperatorError(f"the working directory {plan.directory} is not there (--workdir)")
    for path in (plan.pid_file.path, *([plan.log_file] if to_log else ())):
        _make_directory(path.parent)
    with plan.pid_file.locked():
        found = plan.pid_file.running()
        if found is not None:
            raise _RunsAlready(found)
        try:
            log = plan.log_file.open("ab") if to_log else None
        except OSError as error:
            raise OperatorError(f"the log file {plan.log_file} cannot be written: {error.strerror}") from error
        try:
            popen = subprocess.Popen(
                plan.command,
                cwd=plan.directory,
                env={**plan.environ, **plan.free_admin()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=process_group,
                start_new_session=start_new_session,
            )
        except OSError as error:
            raise OperatorError(f"{plan.command[0]} cannot be started: {error.strerror}") from error
        finally:
            if log is not None:
                log.close()
        mark = ProcessMark.of(popen.pid)
        try:
            if mark is None:  # it is dead already, and waits for us to ask how it ended
                mark = ProcessMark(popen.pid, 0, "")
            else:
                plan.pid_file.write(mark)
        except OperatorError:
            popen.kill()
            popen.wait()
            raise
    return popen, mark


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"the folder {path} cannot be made: {error.strerror}") from error


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_line(path: Path, since: int) -> str:
    """What was said last, if anything was since the file was so long."""
    try:
        with path.open("rb") as file:
            file.seek(max(since, _size(path) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


# ---------------------------------------------------------------- stopping


def _stop(plans: Sequence[Plan], patience: float) -> Iterator[_Report]:
    """Tell all to leave, then wait for each: they leave side by side."""
    asked = [_ask_to_leave(plan) for plan in plans]
    deadline = time.monotonic() + patience
    for plan, answer in zip(plans, asked, strict=True):
        yield _await_end(plan, answer, deadline, patience) if isinstance(answer, ProcessMark) else answer


def _ask_to_leave(plan: Plan) -> ProcessMark | _Report:
    """The process that was told to leave, or what there is to say instead."""
    try:
        mark = plan.pid_file.read()
        if mark is None:
            return _Report(plan, "not-running", f"not running: there is no pid file {plan.pid_file.path}")
        with mark.held() as pidfd:
            if pidfd is not None:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                return mark
        plan.pid_file.remove(mark)
    except OperatorError as error:
        return _Report(plan, "failed", str(error), code=ExitCode.FAILED)
    except PermissionError:
        return _Report(plan, "failed", "runs as another user, and was not told to leave", code=ExitCode.FAILED)
    return _Report(plan, "not-running", "not running: its pid file was stale and is removed")


def _await_end(plan: Plan, mark: ProcessMark, deadline: float, patience: float) -> _Report:
    status, note = "stopped", f"stopped (pid {mark.pid})"
    with mark.held() as pidfd:
        if pidfd is not None and not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            status, note = "killed", f"did not leave within {readable_duration(patience)} and was killed (pid {mark.pid})"
            _kill(mark.pid, pidfd)
            if not select.select([pidfd], [], [], _AFTER_KILL)[0]:
                note = f"was killed and does not die (pid {mark.pid}): it may wait for a disk"
                return _Report(plan, "failed", note, mark.pid, ExitCode.FAILED)
    try:
        plan.pid_file.remove(mark)
    except OperatorError as error:
        return _Report(plan, status, f"{note}, but {error}", mark.pid, ExitCode.FAILED)
    return _Report(plan, status, note, mark.pid)


def _kill(pid: int, pidfd: int) -> None:
    """Kill it with all that it has started; its workers would go on without it until their tasks have ended."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _restart(plan: Plan, patience: float) -> _Report:
    (stopped,) = _stop([plan], patience)
    return stopped if stopped.code else _start(plan)


def _status(plan: Plan) -> _Report:
    try:
        mark = plan.pid_file.read()
        if mark is None:
            return _Report(
                plan, "not-running", f"not running: there is no pid file {plan.pid_file.path}", code=ExitCode.NOT_RUNNING
            )
        if mark.is_running:
            return _Report(plan, "running", f"running, pid {mark.pid}, for {readable_duration(mark.age)}", mark.pid)
        plan.pid_file.remove(mark)
    except OperatorError as error:
        return _Report(plan, "failed", str(error), code=ExitCode.FAILED)
    return _Report(plan, "not-running", "not running: its pid file was stale and is removed", code=ExitCode.NOT_RUNNING)
