"""`stem worker diagnose`: why a node of this host does not start or does not work. Its parts serve `stem doctor` as well."""

from __future__ import annotations

import argparse
import difflib
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stem_actors.config import SETTINGS, Settings, read_value, resolve
from stem_actors.errors import ConfigError, UsageError
from stem_cli import environment_file
from stem_cli.checks import Check, Level, failed, fine, print_checks, warned
from stem_cli.connection import duration_of
from stem_cli.exit_codes import ExitCode
from stem_cli.healthcheck import why_not_ready
from stem_cli.output import Output, readable_duration
from stem_cli.pid_file import PidFile, PidFileBroken, ProcessMark
from stem_cli.round_trips import Finding, check_stores

__all__ = ["descriptor_check", "environment_of", "of_finding", "process_checks", "run", "settings_checks"]

_ROLES = ("broker", "backend", "clock")
_OF_PROCESSES = {
    "STEM_CONFIG",
    "STEM_WORKER_COMMAND",
    "STEM_WORKER_NODES",
    "STEM_WORKER_NODE",
    "STEM_WORKER_INDEX",
    "STEM_WORKER_HOST",
    "STEM_WORKER_PIDFILE",
    "STEM_WORKER_LOGFILE",
    *(f"STEM_{name}" for name in ("OPTS", "NODES", "BIN", "USER", "GROUP", "ENV_FILE", "PID_DIR", "LOG_DIR", "WORK_DIR")),
}
"""Variables that are no settings: who starts processes reads or sets them."""

_TOO_FEW, _FEW = 64, 1024  # descriptors; and some for each executor
_OF_EACH_EXECUTOR = 8


def run(args: argparse.Namespace, output: Output) -> int:
    timeout = duration_of(args.timeout, "--timeout")
    if not timeout:
        raise UsageError("--timeout needs a duration above 0, such as 5s")
    checks, environ = environment_of(args)
    named = fine("pidfile-option", args.pidfile) if args.pidfile else warned("pidfile-option", "no pid file is named", _NAME_IT)
    checks = [named, *process_checks(args.pidfile, args.logfile, timeout), *checks]
    checks.append(_command_check(environ))
    settings, more = settings_checks(args, environ)
    checks += more
    if settings is not None:
        try:
            found = check_stores(settings, timeout, skip_backend=False)
        except ConfigError as error:
            checks.append(failed("broker", str(error), "compare with `stem config show`"))
        else:
            checks += [of_finding(finding) for finding in found if finding.component in _ROLES]
        checks.append(descriptor_check(settings, args.pidfile))
    print_checks(checks, output)
    return ExitCode.FAILED if any(check.level is Level.ERROR for check in checks) else ExitCode.OK


_NAME_IT = "--pidfile PATH, the one that `stem worker multi` was given"


# ---------------------------------------------------------------- processes and their files


def process_checks(pidfile: str | None, logfile: str | None, timeout: float) -> list[Check]:
    """The files of a node and the process behind them; what is not named is not looked at."""
    return [*(_pid_checks(Path(pidfile), timeout) if pidfile else ()), *(_log_checks(Path(logfile)) if logfile else ())]


def _pid_checks(path: Path, timeout: float) -> Iterator[Check]:
    yield _directory("pid-directory", path.parent)
    pid_file = PidFile(path)
    try:
        mark = pid_file.read()
    except PidFileBroken as error:
        yield fine("pid-file", f"{path} is there")
        yield failed("pid-parse", str(error), "remove it when no node runs, and start the node again")
        return
    if mark is None:
        yield warned("pid-file", f"{path} is not there", "start the node: stem worker multi start NODE")
        return
    yield fine("pid-file", f"{path} is there")
    yield fine("pid-parse", f"pid {mark.pid}")
    if not mark.is_running:
        yield failed("process", f"process {mark.pid} does not run any more", "see the end of its log file, and start it again")
        return
    yield fine("process", f"process {mark.pid} has run for {readable_duration(mark.age)}", pid=mark.pid)
    reason = why_not_ready(mark, timeout)
    if reason is None:
        yield fine("ready", "work can flow")
    else:
        yield failed("ready", reason, "see its log file, and the checks of the stores below")


def _log_checks(path: Path) -> Iterator[Check]:
    yield _directory("log-directory", path.parent)
    if path.exists():
        yield fine("log-file", f"{path} is there")
    else:
        yield warned("log-file", f"{path} is not there", "it is made when the node is started; or name the right one")


def _directory(check: str, path: Path) -> Check:
    if not path.is_dir():
        return failed(check, f"{path} is not there", f"make it: mkdir -p {path}, owned by the user that nodes run as")
    if not os.access(path, os.W_OK | os.X_OK):
        return failed(check, f"{path} cannot be written to", "give it to the user that nodes run as, or run this as that user")
    return fine(check, f"{path} can be written to")


# ---------------------------------------------------------------- environment and settings


def environment_of(args: argparse.Namespace) -> tuple[list[Check], Mapping[str, str]]:
    """The environment with what `--env-file` says, and what is wrong with that file."""
    if not args.env_file:
        return [], os.environ
    try:
        found = environment_file.read(args.env_file)
    except ConfigError as error:
        return [failed("environment-file", str(error), "see to its path and permissions, or leave --env-file out")], os.environ
    environ = {**os.environ, **found.values}
    if found.problems:
        return [failed("environment-file", "; ".join(found.problems), "write KEY=VALUE, one a line")], environ
    return [fine("environment-file", f"{args.env_file} sets {len(found.values)} variables")], environ


def _command_check(environ: Mapping[str, str]) -> Check:
    name = next((each for each in ("STEM_WORKER_COMMAND", "STEMD_COMMAND") if environ.get(each, "").strip()), None)
    if name is None:
        remedy = "stem-node is started; set STEM_WORKER_COMMAND where that is not what you want"
        return warned("worker-command", "STEM_WORKER_COMMAND is not set", remedy)
    return fine("worker-command", f"{name} is set")


def settings_checks(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Settings | None, list[Check]]:
    """The settings in force, or None when there are none; each variable that does not parse, and each that nobody reads."""
    checks = [*_unreadable(environ), *_unknown(environ)]
    try:
        settings = resolve(vars(args), environ).settings
    except ConfigError as error:
        if not any(check.level is Level.ERROR for check in checks):  # else it is said already
            checks.append(failed("settings", str(error), _SEE_SETTINGS))
        return None, checks
    if any(check.level is Level.ERROR for check in checks):  # a flag hides it from us, but not from a node
        return settings, checks
    return settings, [fine("settings", "every setting can be read"), *checks]


_SEE_SETTINGS = "`stem config show` lists the settings; docs/reference/settings.md says how each is written"


def _unreadable(environ: Mapping[str, str]) -> Iterator[Check]:
    for setting in SETTINGS:
        text = environ.get(setting.variable, "").strip()
        if text:
            try:
                read_value(setting.grammar, text, setting.variable)
            except ConfigError as error:
                yield failed("settings", str(error), _SEE_SETTINGS)


def _unknown(environ: Mapping[str, str]) -> Iterator[Check]:
    """Names that are almost those of a setting: nothing reads them, and nobody says so."""
    known = {setting.variable for setting in SETTINGS}
    for name in sorted(environ):
        if name.startswith("STEM_") and name not in known | _OF_PROCESSES:
            meant = difflib.get_close_matches(name, known, 1, 0.85)
            if meant:
                yield warned("settings", f"{name} is no setting and is not read", f"did you mean {meant[0]}?")


# ---------------------------------------------------------------- stores, limits


def of_finding(finding: Finding) -> Check:
    """What `stem health` found of a role. What it only hints at is a warning here."""
    facts = {
        **({} if finding.latency is None else {"latencyMs": round(finding.latency * 1000, 3)}),
        **finding.store,
        **({"tls": dict(finding.tls)} if finding.tls else {}),
    }
    remedy = " ".join(finding.hints)
    if not finding.is_well:
        return failed(finding.component, finding.message, remedy or "see to what is wrong above, first", **facts)
    return (
        warned(finding.component, finding.message, remedy, **facts)
        if remedy
        else fine(finding.component, finding.message, **facts)
    )


def descriptor_check(settings: Settings, pidfile: str | None) -> Check:
    """The limit of the node that runs, if one does, else ours: what is started from here inherits it."""
    name = "file-descriptors"
    mark = _running(pidfile)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if mark is None else _limit_of(mark.pid)
    whose = "here" if mark is None else f"of process {mark.pid}"
    needed = _TOO_FEW + _OF_EACH_EXECUTOR * settings.concurrency
    said = f"{_number(soft)} may be open at once {whose} (at most {_number(hard)})"
    facts = {"soft": soft, "hard": hard, "needed": needed}
    remedy = "raise it: LimitNOFILE=65536 in the unit, or ulimit -n 65536"
    if soft != resource.RLIM_INFINITY and soft < needed:
        return failed(name, f"{said}, and a worker with {settings.concurrency} executors needs {needed}", remedy, **facts)
    if soft != resource.RLIM_INFINITY and soft < _FEW:
        return warned(name, said, f"{remedy}; tasks open files, too", **facts)
    return fine(name, said, **facts)


def _running(pidfile: str | None) -> ProcessMark | None:
    if not pidfile:
        return None
    try:
        return PidFile(Path(pidfile)).running()
    except PidFileBroken:
        return None


def _limit_of(pid: int) -> Sequence[int]:
    import psutil

    try:
        return psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
    except psutil.Error:  # another user's, or gone
        return resource.getrlimit(resource.RLIMIT_NOFILE)


def _number(limit: int) -> str:
    return "any number" if limit == resource.RLIM_INFINITY else str(limit)
