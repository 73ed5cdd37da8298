"""The command lines of `stem`, `stem-node` and `stem-chaos`.

Man pages are built from this file where nothing else of ours is there, so it imports the standard library and rich-argparse only.
What a subcommand does is named as text (`handler`) and imported when it is run. Values are passed on as they were written:
`config.py` and the commands know their grammars. A test holds the flags here and the settings there together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["MEASUREMENTS", "TASK_STATES", "CommandParser", "build_chaos_parser", "build_node_parser", "build_stem_parser"]

TASK_STATES = ("queued", "running", "retried", "succeeded", "failed", "cancelled")
MEASUREMENTS = ("throughput", "payload", "enqueue", "bulk", "latency", "async", "recovery", "idle")
SHELLS = ("bash", "zsh", "fish", "tcsh")
PROGRAMS = ("stem", "stem-node", "stem-chaos")
USAGE_ERROR = 64  # argparse's own 2 is taken by nothing, and a shell's "misuse of builtins" besides
_DOCS = "Settings can also be given as STEM_* variables or in a file (--config); `stem config show` lists them."


class _Version(argparse.Action):
    """Prints the version of the distribution; looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("stem-actors")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"{parser.prog.split()[0]} {number}")
        parser.exit(0)


class CommandParser(argparse.ArgumentParser):
    """An argument parser with our exit code and help. Long options are written out: abbreviations change with us."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _help_formatter(), **rest})

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _help_formatter() -> type[argparse.HelpFormatter]:
    """Help in colour for a terminal. It takes rich, which is slow to load, so it is for terminals only."""
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            from rich_argparse import RawDescriptionRichHelpFormatter
        except ImportError:  # the man pages are built without it at need
            pass
        else:
            return RawDescriptionRichHelpFormatter
    return argparse.RawDescriptionHelpFormatter


# ---------------------------------------------------------------- stem


def build_stem_parser() -> CommandParser:
    """The parser of `stem`. The namespace holds `handler` (`module:function`, None for a group) and settings by their names."""
    parser = CommandParser(
        prog="stem",
        description="Operate a Stem task system.",
        epilog=_example("stem enqueue shop.tasks.send_mail --args '[\"a@b.c\"]' --wait 10s", "stem queue list --json")
        + f"\n\n{_DOCS}",
    )
    _add_global_options(parser, suppress=False)
    parser.set_defaults(handler=None, parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    enqueue = _command(
        commands,
        "enqueue",
        "enqueue:run",
        "enqueue one task and print its id",
        "stem enqueue shop.tasks.send_mail --args '[\"a@b.c\"]'",
        'stem enqueue reports.build --kwargs \'{"month": "2025-01"}\' --countdown 5m --queue slow',
    )
    enqueue.add_argument("task_name", metavar="NAME", help="name of the task")
    enqueue.add_argument("--args", metavar="JSON", default="[]", help="positional arguments, a JSON list")
    enqueue.add_argument("--kwargs", metavar="JSON", default="{}", help="keyword arguments, a JSON object")
    enqueue.add_argument("--queue", "-q", metavar="QUEUE", help="queue (default: the task's)")
    enqueue.add_argument("--priority", metavar="0-9", type=int, help="9 goes first (default: the task's)")
    enqueue.add_argument("--countdown", metavar="DURATION", help="do not start it before so long from now, such as 30s")
    enqueue.add_argument("--eta", metavar="TIME", help="do not start it before this ISO-8601 time; wins over --countdown")
    enqueue.add_argument("--expires", metavar="DURATION|TIME", help="do not start it later than this")
    enqueue.add_argument("--task-id", metavar="ID", help="an id of your own; a second task with it is refused")
    enqueue.add_argument("--header", metavar="KEY=VALUE", action="append", default=[], help="header of the message; repeatable")
    enqueue.add_argument("--max-retries", metavar="N", type=int, help="retries at most (default: the task's)")
    enqueue.add_argument(
        "--wait",
        metavar="DURATION",
        nargs="?",
        const="",
        help="wait until it has ended, for ever unless told, and print its result",
    )

    task = _group(
        commands, "task", "look at single tasks, and cancel them", "stem task show 0190b6c8-8b1e-7c3a-9d2f-1a2b3c4d5e6f"
    )
    task_list = _command(
        task,
        "list",
        "task:list_tasks",
        "list tasks by their records, newest first",
        "stem task list --state failed --limit 10",
        "stem task list --queue mail --json",
        more="A task that only waits has no record yet, and is counted by `stem queue list`; records go after STEM_RESULT_TTL.",
    )
    task_list.add_argument(
        "--state", choices=TASK_STATES, help="only tasks in this state: " + ", ".join(TASK_STATES), metavar="STATE"
    )
    task_list.add_argument("--queue", "-q", metavar="QUEUE", help="only tasks of this queue")
    _add_paging(task_list)
    show = _command(task, "show", "task:show", "show the state, result and error of a task", "stem task show 0190b6c8-… --json")
    show.add_argument("id", metavar="ID", help="id of the task")
    wait = _command(
        task,
        "wait",
        "task:wait",
        "wait until a task has ended and print its result",
        "stem task wait 0190b6c8-… --timeout 1m",
        more="Exits with 0 when it succeeded, 1 when it failed or was cancelled, 70 at the timeout.",
    )
    wait.add_argument("id", metavar="ID", help="id of the task")
    wait.add_argument("--timeout", metavar="DURATION", help="give up after so long (default: none)")
    cancel = _command(
        task,
        "revoke",
        "task:revoke",
        "cancel tasks, wherever they are",
        "stem task revoke 0190b6c8-… --reason 'wrong month'",
        "stem task revoke 0190b6c8-… 0190b6c9-… --terminate --json",
        more=_REVOKING,
    )
    cancel.add_argument("task", metavar="ID", nargs="+", help="id of a task")
    _add_revoking(cancel)
    cancel.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for workers' answers (default: 5s)")
    unique = _command(
        task,
        "unique",
        "unique:unique",
        "show who holds the key of a unique task, or give it free",
        "stem task unique user-42",
        "stem task unique user-42 --queue mail --free --json",
        more="Exits with 1 when nobody holds it. A task whose key is given free goes on; another may be enqueued beside it.",
    )
    unique.add_argument("key", metavar="KEY", help="the key: a call's own, or the one in the task's record (stem.unique.key)")
    unique.add_argument("--queue", "-q", metavar="QUEUE", help="only in this queue (default: in all)")
    unique.add_argument("--free", action="store_true", help="give it free")

    tasks = _group(commands, "tasks", "look at the tasks of an application", "stem tasks ls --app shop.tasks:app")
    _command(
        tasks,
        "ls",
        "tasks:ls",
        "list the tasks that an application defines",
        "stem tasks ls --app shop.tasks:app",
        more="Imports the application named by --app or STEM_APP, and the modules in STEM_TASKS.",
    )

    queue = _group(commands, "queue", "look at queues, pause or empty them", "stem queue list")
    _command(queue, "list", "queue:list_queues", "count what is in each queue", "stem queue list --json")
    for verb, what, more in (
        (
            "pause",
            "let workers leave queues alone",
            "What runs goes on, what waits stays where it is, and tasks can be enqueued. ",
        ),
        ("resume", "let workers receive from paused queues again", ""),
    ):
        change = _command(
            queue,
            verb,
            f"queue:{verb}",
            what,
            f"stem queue {verb} mail",
            f"stem queue {verb} mail reports --reason 'the mail server moves'",
            more=f"{more}It is stored, so it holds for workers that start later: exits with 0 also when no worker is up.",
        )
        change.add_argument("queue", metavar="QUEUE", nargs="+", help=f"the queue to {verb}")
        _add_pausing(change, verb)
        change.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for workers' answers (default: 5s)")
    empty = _command(
        queue,
        "purge",
        "queue:purge",
        "remove all tasks that wait in a queue",
        "stem queue purge mail",
        "stem queue purge mail --dead-letters --yes",
        more="Takes what is ready or delayed, never what is running. Asks first; without a terminal it needs --yes.",
    )
    empty.add_argument("queue", metavar="QUEUE", help="the queue to empty")
    empty.add_argument("--dead-letters", action="store_true", help="its dead letters, too")
    _add_consent(empty)

    database = _group(commands, "db", "look after the schema in Postgres", "stem db status")
    _command(
        database,
        "status",
        "db:show_status",
        "show which version the schema is at, and which this Stem needs",
        "stem db status --broker postgres://stem@db.example/app",
        more="Exits with 1 when workers of this version cannot start there.",
    )
    _command(
        database,
        "migrate",
        "db:bring_up_to_date",
        "bring the schema up to date",
        "stem db migrate",
        more="Workers do so themselves, unless the URL says migrate=false. They may run meanwhile.",
    )
    schema_sql = _command(
        database,
        "sql",
        "db:show_sql",
        "print the SQL that brings the schema up to date",
        "stem db sql --broker postgres://db.example/app",
        "stem db sql --from 1 | psql --host db.example app",
        more="Asks no server.",
    )
    schema_sql.add_argument(
        "--from", dest="after", metavar="VERSION", type=int, default=0, help="the version it is at (default: 0, there is none)"
    )

    dlq = _group(commands, "dlq", "look after dead letters: tasks set aside", "stem dlq list --queue default")
    dead_list = _command(
        dlq, "list", "dlq:list_entries", "list dead letters, newest first", "stem dlq list --queue default --limit 10"
    )
    dead_list.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the tasks came from")
    _add_paging(dead_list)
    dead_list.add_argument("--since", metavar="TIME", help="only those set aside at or after this ISO-8601 time")
    dead_show = _command(dlq, "show", "dlq:show", "show one dead letter as JSON", "stem dlq show --queue default --id 0190b6c8-…")
    dead_show.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the task came from")
    dead_show.add_argument("--id", metavar="ID", required=True, help="id of the task")
    _add_dead_letter_changes(dlq)

    worker = _group(commands, "worker", "look at workers", "stem worker status --once")
    status = _command(
        worker,
        "status",
        "worker:status",
        "show the last heartbeat of each worker",
        "stem worker status --once --json",
        "stem worker status --follow --timeout 0",
        more="When following it exits with 1 when no heartbeat came for --timeout, with 70 when the store was away for so long.",
    )
    how = status.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="print a snapshot and exit (what it does anyway)")
    how.add_argument(
        "--follow", "-f", action="store_true", help="go on: refreshed in place on a terminal, else a line for each change"
    )
    status.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="only this worker; repeatable")
    status.add_argument(
        "--timeout",
        metavar="DURATION",
        default="30s",
        help="with --follow: give up when no heartbeat came for so long; 0: never (default: 30s)",
    )
    status.add_argument(
        "--heartbeat-interval",
        metavar="DURATION",
        dest="expected_interval",  # not the setting's name: this is about other processes'
        help="a heartbeat older than this is marked stale (default: STEM_HEARTBEAT_INTERVAL)",
    )

    status.add_argument(
        "--metrics-exporters",
        metavar="LIST",
        help="taken, so that older scripts go on, and put to no use: metrics come from nodes (`stem observe metrics`)",
    )

    _add_control(worker)
    _add_processes(worker)
    _add_observe(commands)
    _add_top(commands)

    config = _group(commands, "config", "look at the settings", "stem config show")
    _command(config, "show", "config:show", "show every setting, its value and where it comes from", "stem config show --json")
    _add_health(commands)
    _add_doctor(commands)
    _add_bench(commands)
    _add_completion(commands)
    return parser


_REVOKING = (
    "A task that waits never starts; one that runs goes on unless --terminate is given. It is stored, so it holds for "
    "workers that start later: exits with 0 also when no worker is up."
)


def _add_revoking(parser: CommandParser) -> None:
    """How tasks are revoked, whichever command does it."""
    parser.add_argument("--terminate", action="store_true", help="interrupt it at once if it runs; kill it if it ignores that")
    parser.add_argument("--reason", metavar="TEXT", help="stands in the task's record")
    parser.add_argument("--requester", metavar="NAME", default="stem-cli", help="who asks for it (default: stem-cli)")
    parser.add_argument("--expires-in", metavar="DURATION", help="forget it after so long (default: 7d)")


def _add_pausing(parser: CommandParser, verb: str) -> None:
    """How queues are paused and resumed, whichever command does it."""
    parser.add_argument("--reason", metavar="TEXT", help=f"stands in the workers' logs (default: queue {verb}d by stem-cli)")
    parser.add_argument("--requester", metavar="NAME", default="stem-cli", help="who asks for it (default: stem-cli)")


def _add_control(worker: Any) -> None:
    """Commands to running workers."""
    answers = (
        "Exits with 0 when all have answered, 75 when only some have, 70 when none has or one reports an error. "
        "Expected are the workers named by --worker, or else all that have a live heartbeat."
    )
    ping = _command(worker, "ping", "control:ping", "ask who is there", "stem worker ping --json", more=answers)
    stats = _command(
        worker, "stats", "control:stats", "ask workers for their state and figures", "stem worker stats -w web-1", more=answers
    )
    inspect = _command(
        worker,
        "inspect",
        "control:inspect",
        "ask workers what they run",
        "stem worker inspect --no-include-revoked",
        more=answers,
    )
    inspect.add_argument(
        "--include-revoked", action=argparse.BooleanOptionalAction, default=True, help="list revoked tasks, too (default: yes)"
    )
    revoke = _command(
        worker,
        "revoke",
        "control:revoke",
        "cancel tasks, wherever they are",
        "stem worker revoke --task 0190b6c8-… --terminate --reason 'wrong month'",
        more=_REVOKING,
    )
    revoke.add_argument("--task", "-t", metavar="ID", action="append", default=[], help="the task to cancel; repeatable")
    _add_revoking(revoke)
    pause, resume = (
        _command(
            worker,
            verb,
            f"control:{verb}",
            what,
            f"stem worker {verb} --queue mail",
            more="It is stored first and holds for all workers, also those that start later; the ones named by --worker are told "
            f"now, the others see it within ten seconds. {answers}",
        )
        for verb, what in (
            ("pause", "let workers leave queues alone; what runs goes on"),
            ("resume", "let workers receive from paused queues again"),
        )
    )
    for command, verb in ((pause, "pause"), (resume, "resume")):
        command.add_argument(
            "--queue", "-q", metavar="QUEUE", action="append", default=[], help=f"the queue to {verb}; repeatable"
        )
        _add_pausing(command, verb)
    scale = _command(
        worker,
        "concurrency",
        "control:concurrency",
        "give workers more executors, or fewer",
        "stem worker concurrency 8 -w web-1",
        more="No task is interrupted: an executor that is too many leaves when what it runs has ended. It holds until the worker "
        "ends. A worker that was started with --autoscale refuses. " + answers,
    )
    scale.add_argument("executors", metavar="N", type=int, help="executor processes of each worker")
    leave = _command(
        worker,
        "shutdown",
        "control:shutdown",
        "let workers leave",
        "stem worker shutdown -w web-1 --mode warm",
        more="A node starts a worker that has left again: to stop a node, send it SIGTERM. " + answers,
    )
    leave.add_argument(
        "--mode",
        choices=("warm", "soft", "hard"),
        default="warm",
        help="warm: running tasks end first; soft: they are interrupted and handed back; hard: they are killed and handed back",
    )
    for command in (ping, stats, inspect, revoke, pause, resume, scale, leave):
        command.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="only this worker; repeatable")
        command.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for answers (default: 5s)")


def _add_observe(commands: Any) -> None:
    """What the stores hold, and what nodes have counted."""
    observe = _group(commands, "observe", "look at queues, workers, dead letters and metrics", "stem observe queues --json")
    for name, handler, summary in (
        ("queues", "observe:queues", "count what is in each queue that holds something or that a worker works on"),
        ("workers", "observe:workers", "show how much each worker runs, and when it was last heard of"),
        ("dlq", "observe:dead_letters", "list the newest dead letters of all queues"),
    ):
        look = _command(
            observe,
            name,
            handler,
            summary,
            f"stem observe {name} --json",
            f"stem observe {name} --file snapshot.json",
            more='A snapshot is JSON: {"queues": [{"queue": …, "pending": …, "inflight": …}], "workers": [{"id": …, "active": …, '
            '"lastHeartbeat": …}], "dlq": [{"queue": …, "taskId": …, "reason": …, "deadAt": …}]}.',
        )
        look.add_argument("--file", "-f", metavar="FILE", help="show a snapshot instead; a file that is not there holds nothing")
    metrics = _command(
        observe,
        "metrics",
        "observe_metrics:metrics",
        "print what running nodes have counted, as JSON",
        "stem observe metrics",
        "stem observe metrics --node web-1:9808 --node web-2:9808",
        more="Asks the /metrics of each node. A histogram's min and max are bounds of its buckets. "
        "Exits with 75 when only some nodes answer, with 70 when none does.",
    )
    metrics.add_argument(
        "--node",
        metavar="URL",
        action="append",
        default=[],
        help="a node's admin address; repeatable (default: STEM_ADMIN, which is 127.0.0.1:9808 unless set)",
    )
    metrics.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for each answer (default: 5s)")


def _add_top(commands: Any) -> None:
    top = _command(
        commands,
        "top",
        "top:run",
        "watch nodes, workers, queues, running tasks and supervision trees",
        "stem top",
        "stem top --worker web-1-1 --interval 1s",
        "stem top --json --once",
        more="Fills the terminal until q (exit code 0) or Ctrl-C (130). Queues are read each time; what workers say of "
        "themselves is as old as their last heartbeat (STEM_HEARTBEAT_INTERVAL). Where stdout is no terminal it prints once; "
        "with --json a document a line, without end.",
    )
    top.add_argument("--once", action="store_true", help="print it once, all of it, and exit")
    top.add_argument("--interval", metavar="DURATION", default="2s", help="time between two looks (default: 2s)")
    top.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="of workers just this; repeatable")


def _add_processes(worker: Any) -> None:
    """Nodes as processes of this host."""
    multi = _command(
        worker,
        "multi",
        "multi:run",
        "start, stop and restart nodes of this host, or see whether they run",
        "stem worker multi start mail reports --app shop.tasks:app --queue default",
        "stem worker multi stop mail --pidfile '/run/shop/%n.pid'",
        "stem worker multi restart mail --command-line 'stem-node --concurrency 4 --name %n'",
        "stem worker multi start mail --foreground --env-file /etc/shop/stem.env",
        more="In paths and in the command %n stands for the node's name, %N for it in capitals, %h for the host, %i or %I for "
        "the node's number from 1, %d for the time in UTC, %% for a percent sign. Each node gets its queues, and unless they are "
        "set a STEM_NAME (HOST-NODE) and a STEM_ADMIN (the first free port from 9808 on, or for the second node from 9809, …) as "
        "variables. One that does not leave in time is killed. "
        "Exits with 0; start: 1 when it runs already, 70 when it cannot be started; stop: 70 when it cannot be ended; "
        "status: 3 when it does not run. With several nodes the last of these that is not 0 counts.",
    )
    multi.add_argument(
        "action", choices=("start", "stop", "restart", "status"), metavar="ACTION", help="start, stop, restart, status"
    )
    multi.add_argument(
        "nodes", metavar="NODE", nargs="*", help="names of the nodes (default: those in STEMD_NODES or STEM_WORKER_NODES)"
    )
    what = multi.add_mutually_exclusive_group()
    what.add_argument("--command", metavar="ARG", action="append", help="one word of the command; repeatable: --command=--app")
    what.add_argument(
        "--command-line",
        metavar="COMMAND",
        help="the command, with quotes as in a shell (default: STEM_WORKER_COMMAND or STEMD_COMMAND, or else stem-node)",
    )
    multi.add_argument(
        "--queue", "-q", metavar="QUEUE", dest="queues", action="append", help="queue to work on; repeatable (default: default)"
    )
    multi.add_argument(
        "--pidfile", metavar="PATH", default="/var/run/stem/%n.pid", help="pid file of each (default: /var/run/stem/%%n.pid)"
    )
    multi.add_argument("--logfile", metavar="PATH", help="log file of each, appended to (default: /var/log/stem/%%n.log)")
    multi.add_argument("--workdir", metavar="PATH", default=".", help="where they run (default: here)")
    _add_environment_file(multi)
    multi.add_argument(
        "--detach", action=argparse.BooleanOptionalAction, default=True, help="let them go on by themselves (default: yes)"
    )
    multi.add_argument(
        "--foreground",
        action="store_true",
        help="the same as --no-detach: run one node, pass signals on to it and end with its exit code; "
        "it writes to where we do unless --logfile is given",
    )
    multi.add_argument(
        "--timeout",
        metavar="DURATION",
        help="kill a node that has not left after so long (default: 30s, and longer where STEM_DRAIN_TIMEOUT and "
        "STEM_SOFT_GRACE_PERIOD need it)",
    )

    check = _command(
        worker,
        "healthcheck",
        "healthcheck:run",
        "see whether one node of this host runs, and is ready",
        "stem worker healthcheck --pidfile /var/run/stem/mail.pid",
        "stem worker healthcheck --pidfile /var/run/stem/mail.pid --liveness --quiet",
        more="Asks the /readyz of the process that the pid file names. Exits with 0 when it is well, else with 70.",
    )
    check.add_argument("--pidfile", metavar="PATH", required=True, help="the node's pid file")
    check.add_argument("--node", metavar="NAME", help="name to show (default: that of the pid file)")
    check.add_argument("--logfile", metavar="PATH", help="log file to show")
    check.add_argument("--liveness", action="store_true", help="look at the process only, not at whether work can flow")
    check.add_argument("--quiet", action="store_true", help="print nothing: the exit code says it")
    check.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for its answer (default: 5s)")

    diagnose = _command(
        worker,
        "diagnose",
        "diagnose:run",
        "find out why a node of this host does not start or does not work",
        "stem worker diagnose --pidfile /var/run/stem/mail.pid --logfile /var/log/stem/mail.log",
        more="Exits with 0 when nothing is wrong (warnings aside), else with 70.",
    )
    _add_process_files(diagnose)
    diagnose.add_argument("--timeout", metavar="DURATION", default="5s", help="for each question to a store (default: 5s)")


def _add_process_files(parser: CommandParser) -> None:
    parser.add_argument("--pidfile", metavar="PATH", help="the node's pid file")
    parser.add_argument("--logfile", metavar="PATH", help="the node's log file")
    _add_environment_file(parser)


def _add_environment_file(parser: CommandParser) -> None:
    parser.add_argument("--env-file", metavar="FILE", help="file of KEY=VALUE lines, which go before the environment")


def _add_dead_letter_changes(dlq: Any) -> None:
    replay = _command(
        dlq,
        "replay",
        "dlq:replay",
        "run dead letters again, oldest first",
        "stem dlq replay --queue default --dry-run",
        "stem dlq replay --queue mail --task shop.send_mail --since 2025-01-31T08:00:00Z --limit 100 --yes",
        more="Each gets a new budget of retries and keeps its counters. Asks first; without a terminal it needs --yes. "
        "Ctrl-C ends it between two steps; it says how many were done. Exits with 1 when an --id is not there, with 130 when "
        "it was interrupted.",
    )
    replay.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the tasks came from")
    replay.add_argument("--limit", "-l", metavar="N", type=int, help="this many at most (default: 10, or all that --id names)")
    replay.add_argument("--since", metavar="TIME", help="only those set aside at or after this ISO-8601 time")
    replay.add_argument("--id", metavar="ID", action="append", default=[], help="only this task; repeatable")
    replay.add_argument("--task", metavar="NAME", help="only tasks of this name")
    replay.add_argument("--reason", metavar="TEXT", help="only those set aside for this reason, such as max-retries-exhausted")
    replay.add_argument("--delay", metavar="DURATION", help="let them wait so long first, such as 5m")
    replay.add_argument("--dry-run", action="store_true", help="show which these would be and change nothing")
    _add_consent(replay)

    purge = _command(
        dlq,
        "purge",
        "dlq:purge",
        "remove dead letters for good",
        "stem dlq purge --queue mail --dry-run",
        "stem dlq purge --queue mail --limit 100 --yes",
        more="Asks first; without a terminal it needs --yes. Ctrl-C ends it between two steps; it says how many were done. "
        "Exits with 1 when an --id is not there, with 130 when it was interrupted.",
    )
    purge.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the tasks came from")
    purge.add_argument("--limit", "-l", metavar="N", type=int, help="this many at most, the newest (default: all)")
    purge.add_argument("--since", metavar="TIME", help="only those set aside at or after this ISO-8601 time")
    purge.add_argument("--id", metavar="ID", action="append", default=[], help="only this task; repeatable")
    purge.add_argument("--dry-run", action="store_true", help="count them and change nothing")
    _add_consent(purge)


def _add_health(commands: Any) -> None:
    health = _command(
        commands,
        "health",
        "health:run",
        "check that every store answers, and how fast",
        "stem health",
        "stem health --broker sqlite:////var/lib/shop/stem.db --json",
        "stem health --broker rediss://cache:6379/0",
        more="Makes a round trip for each role, in a namespace of its own (NAMESPACE.health). "
        "Exits with 0 when all is well, 70 when something is not.",
    )
    health.add_argument("--skip-backend", action="store_true", help="leave out where results are kept")
    health.add_argument(
        "--allow-insecure",
        action="store_true",
        help="do not verify certificates, as STEM_TLS_ALLOW_INSECURE=true: to see what else is wrong",
    )
    health.add_argument("--timeout", metavar="DURATION", default="5s", help="for each round trip (default: 5s)")
    health.add_argument(
        "--watch", metavar="DURATION", nargs="?", const="2s", help="check again and again, with a pause between (default: 2s)"
    )


def _add_doctor(commands: Any) -> None:
    doctor = _command(
        commands,
        "doctor",
        "doctor:run",
        "look at everything that can be wrong, and say what to do",
        "stem doctor",
        "stem doctor --app shop.tasks:app --json",
        "stem doctor --pidfile /var/run/stem/mail.pid --env-file /etc/shop/stem.env",
        more="What `stem health` and `stem worker diagnose` know, and: versions, leases against the time a node takes to leave, "
        "queues that nobody works on, workers that are not ready, dead letters. With --app the application is imported, too. "
        "Exits with 0 when nothing is wrong (warnings aside), else with 70.",
    )
    _add_process_files(doctor)
    doctor.add_argument("--timeout", metavar="DURATION", default="5s", help="for each question to a store (default: 5s)")


def _add_bench(commands: Any) -> None:
    bench = _command(
        commands,
        "bench",
        "bench.command:run",
        "measure how fast tasks run on this machine",
        "stem bench --quick",
        "stem bench --broker sqlite:////var/lib/shop/stem.db --what throughput,latency --json",
        more="Starts a node of its own and never touches your queues: on SQLite it uses a new file beside the one named, "
        "elsewhere a namespace of its own, and removes them afterwards. Each figure stands beside the store's own raw rate, "
        "taken in turns with it. Exits with 70 when a task did not run exactly once.",
    )
    bench.add_argument("--what", metavar="NAMES", help=f"only these, with commas between them: {', '.join(MEASUREMENTS)}")
    bench.add_argument(
        "--tasks", metavar="N", type=int, dest="count", help="tasks of a throughput measurement (default: 20000; quick: 4000)"
    )
    bench.add_argument("--quick", action="store_true", help="one round with few tasks: a first impression, in half a minute")


def _add_completion(commands: Any) -> None:
    completion = _command(
        commands,
        "completion",
        "completion:run",
        "print a script that completes commands in a shell",
        "stem completion bash > ~/.local/share/bash-completion/completions/stem",
        "stem completion zsh > ~/.zfunc/_stem",
        "stem completion fish > ~/.config/fish/completions/stem.fish",
        "stem completion bash --program stem-node > ~/.local/share/bash-completion/completions/stem-node",
        more="zsh needs `fpath+=~/.zfunc` before compinit in ~/.zshrc.",
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.add_argument(
        "--program", choices=PROGRAMS, metavar="NAME", default="stem", help="the command to complete: " + ", ".join(PROGRAMS)
    )


def _add_paging(parser: CommandParser) -> None:
    parser.add_argument("--limit", "-l", metavar="N", type=int, default=50, help="this many at most (default: 50)")
    parser.add_argument("--offset", metavar="N", type=int, default=0, help="leave out the first N")


def _add_consent(parser: CommandParser) -> None:
    parser.add_argument("--yes", "-y", action="store_true", help="do it without asking")


def _add_global_options(parser: argparse.ArgumentParser, suppress: bool) -> None:
    """Options accepted before and after a subcommand; there they must not undo with a default what was said before it."""
    default = argparse.SUPPRESS if suppress else None
    switch = argparse.SUPPRESS if suppress else False
    group = parser.add_argument_group("global options")
    group.add_argument("--broker", metavar="URL", dest="broker_url", default=default, help="where tasks wait (STEM_BROKER_URL)")
    group.add_argument(
        "--backend",
        metavar="URL",
        dest="result_backend_url",
        default=default,
        help="where results are kept (STEM_RESULT_BACKEND_URL)",
    )
    group.add_argument("--namespace", metavar="NAME", default=default, help="prefix of everything in the stores (STEM_NAMESPACE)")
    group.add_argument("--app", "-A", metavar="MODULE[:ATTR]", default=default, help="the application object (STEM_APP)")
    group.add_argument("--config", metavar="FILE", default=default, help="TOML file with settings (STEM_CONFIG)")
    group.add_argument("--log-level", metavar="LEVEL", default=default, help="debug, info, warning or error (STEM_LOG_LEVEL)")
    group.add_argument("--json", action="store_true", default=switch, help="print JSON instead of text")
    group.add_argument("--no-color", action="store_true", default=switch, help="no colours (so does NO_COLOR)")
    group.add_argument("--version", action=_Version)


def _group(commands: Any, name: str, summary: str, *examples: str) -> Any:
    parser: CommandParser = commands.add_parser(name, help=summary, description=_sentence(summary), epilog=_example(*examples))
    _add_global_options(parser, suppress=True)
    parser.set_defaults(handler=None, parser=parser)
    return parser.add_subparsers(metavar="COMMAND", title="commands")


def _command(commands: Any, name: str, handler: str, summary: str, *examples: str, more: str = "") -> CommandParser:
    description = f"{_sentence(summary)} {more}".strip()
    parser: CommandParser = commands.add_parser(name, help=summary, description=description, epilog=_example(*examples))
    _add_global_options(parser, suppress=True)
    parser.set_defaults(handler=handler, parser=parser)
    return parser


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _example(*lines: str) -> str:
    return "\n  ".join([f"example{'s' if len(lines) > 1 else ''}:", *lines])


# ---------------------------------------------------------------- stem-node


def build_node_parser() -> CommandParser:
    """The parser of `stem-node`. Each option is stored under the name of its setting."""
    parser = CommandParser(
        prog="stem-node",
        description="Run and supervise the Stem workers of this host.",
        epilog=_example(
            "stem-node --app shop.tasks:app",
            "stem-node --app shop.tasks:app --workers 2 --concurrency 4 --queue mail --queue default --name web-1",
        )
        + f"\n\n{_DOCS}",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--app", "-A", metavar="MODULE[:ATTR]", help="the application object (STEM_APP)")
    work.add_argument("--broker", metavar="URL", dest="broker_url", help="where tasks wait (default: sqlite:///stem.db)")
    work.add_argument("--backend", metavar="URL", dest="result_backend_url", help="where results are kept (default: the broker)")
    work.add_argument("--namespace", metavar="NAME", help="prefix of everything in the stores (default: stem)")
    work.add_argument(
        "--queue", "-q", metavar="QUEUE", dest="queues", action="append", help="queue to work on; repeatable (default: default)"
    )
    work.add_argument("--visibility-timeout", metavar="DURATION", help="how long a lease lasts unless renewed (default: 30s)")

    processes = parser.add_argument_group("processes")
    processes.add_argument("--name", "-n", metavar="NAME", help="name of this node (default: the host's)")
    processes.add_argument("--workers", metavar="N", help="worker processes (default: 1)")
    processes.add_argument(
        "--concurrency", "-c", metavar="N", help="executor processes of each worker (default: one per processor)"
    )
    processes.add_argument(
        "--autoscale",
        metavar="MIN:MAX",
        help="let each worker's executors follow its work, between MIN and MAX of them; --concurrency is MAX then, unless given",
    )
    processes.add_argument(
        "--prefetch-multiplier", metavar="N", help="deliveries held per executor, running and waiting (default: 2)"
    )
    processes.add_argument(
        "--threads", metavar="N", help="tasks at once in one executor, each in a thread, unless they are coroutines (default: 1)"
    )
    processes.add_argument(
        "--max-tasks-per-executor", metavar="N", help="replace an executor after so many tasks (default: none)"
    )
    processes.add_argument(
        "--max-memory-per-executor",
        metavar="SIZE",
        help="replace an executor that holds so much memory after a task, such as 200MiB (default: none)",
    )
    processes.add_argument(
        "--max-address-space-per-executor",
        metavar="SIZE",
        help="more memory than this a task cannot get: it fails with MemoryError (default: none)",
    )
    processes.add_argument("--pool", metavar="forkserver|spawn", help="how executors are started (default: forkserver)")
    processes.add_argument(
        "--drain-timeout", metavar="DURATION", help="time for running tasks to end when it leaves (default: 20s)"
    )

    operation = parser.add_argument_group("operation")
    operation.add_argument(
        "--burst",
        action="store_true",
        default=None,
        help="leave when no task is ready and none runs here; delayed ones are not waited for",
    )
    operation.add_argument(
        "--reload",
        action="store_true",
        default=None,
        help="restart the workers when a .py file below the working directory changes; for development",
    )
    operation.add_argument(
        "--admin", metavar="HOST:PORT", help="where /livez, /readyz and /metrics are (default: 127.0.0.1:9808); off"
    )
    operation.add_argument("--pidfile", metavar="PATH", help="file that names its process, for `stem worker healthcheck`")
    operation.add_argument("--log-level", "-l", metavar="LEVEL", help="debug, info, warning, error or critical (default: info)")
    operation.add_argument(
        "--log-format", metavar="FORMAT", help="pretty, plain or json (default: pretty on a terminal, else json)"
    )
    operation.add_argument(
        "--accept-data-loss",
        action="store_true",
        default=None,
        help="work on a Redis that drops tasks when its memory is full",
    )
    operation.add_argument("--enable-chaos", action="store_true", default=None, help="obey commands that kill actors; for tests")
    operation.add_argument("--config", metavar="FILE", help="TOML file with settings (STEM_CONFIG)")
    operation.add_argument("--version", action=_Version)
    return parser


# ---------------------------------------------------------------- stem-chaos


def build_chaos_parser() -> CommandParser:
    """The parser of `stem-chaos`. The namespace holds `handler`, the name of a function of `stem_chaos.command`, or None."""
    parser = CommandParser(
        prog="stem-chaos",
        description="Run tasks while faults are injected, and find out whether Stem keeps its promises here.",
        epilog=_example("stem-chaos run smoke", "stem-chaos run upgrade --broker redis://staging:6379/0")
        + "\n\nExits with 0 when every promise held, 1 when one was broken, 64 when the command line is wrong, 70 when it could "
        "not run.",
    )
    _add_chaos_options(parser, suppress=False)
    parser.set_defaults(handler=None, parser=parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _add_chaos_run(commands)
    _chaos_command(commands, "list", "list_all", "list suites, faults and workloads", "stem-chaos list")
    check = _chaos_command(
        commands,
        "check",
        "check",
        "judge a run's history once more",
        "stem-chaos check stem-chaos-runs/20250131-080000-smoke-7",
        more="Also that of a run which was interrupted. Exits as `run` does.",
    )
    check.add_argument("history", metavar="HISTORY", help="directory of the run")
    report = _chaos_command(
        commands,
        "report",
        "report",
        "write a run's reports once more",
        "stem-chaos report stem-chaos-runs/20250131-080000-smoke-7",
        more="Writes report.json, report.xml (JUnit) and report.html into the run's directory. "
        "Exits with 0 whatever the verdict is.",
    )
    report.add_argument("history", metavar="HISTORY", help="directory of the run")
    return parser


def _add_chaos_run(commands: Any) -> None:
    run = _chaos_command(
        commands,
        "run",
        "run",
        "run a suite and print its verdict",
        "stem-chaos run smoke --broker redis",
        "stem-chaos run smoke --schedule kill-executor/1s,freeze-broker/20s:5s --replay 7",
        "stem-chaos run soak --for 2h --app shop.tasks:app --workload staging.toml",
        "stem-chaos run upgrade --from 0.1.0",
        more="Nodes are started here, for the time of the run. A bare name starts a broker of the run's own; on one that is "
        "named by its URL the run keeps to a namespace of its own, or a file of its own beside the one named, and removes it at "
        "the end.",
    )
    run.add_argument("suite", metavar="SUITE", help="what to run; `stem-chaos list` names them")
    run.add_argument("--broker", metavar="URL|sqlite|redis|postgres", default="sqlite", help="where tasks wait (default: sqlite)")
    run.add_argument(
        "--schedule", metavar="TEXT", help="other faults than the suite's: FAULT/EVERY[:FOR], with commas between them"
    )
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", metavar="N", type=int, help="what chance begins with (default: another each time, and printed)")
    seeds.add_argument(
        "--replay", metavar="SEED", type=int, dest="seed", help="repeat tasks and faults of the run with this seed"
    )
    run.add_argument(
        "--for", metavar="DURATION", dest="duration", help="inject faults for so long, such as 2h (default: the suite's)"
    )
    run.add_argument("--app", "-A", metavar="MODULE:APP", help="run your own tasks, of this application; needs --workload")
    run.add_argument("--workload", metavar="FILE", help="which of them, how often: TOML, or JSON lines (.jsonl); needs --app")
    run.add_argument(
        "--from",
        metavar="VERSION|WHEEL",
        dest="old",
        help="begin with nodes of this version: a wheel, a version, or a git commit",
    )
    run.add_argument("--directory", metavar="DIR", help="keep the run here (default: a new one below stem-chaos-runs)")


def _chaos_command(commands: Any, name: str, handler: str, summary: str, *examples: str, more: str = "") -> CommandParser:
    description = f"{_sentence(summary)} {more}".strip()
    parser: CommandParser = commands.add_parser(name, help=summary, description=description, epilog=_example(*examples))
    _add_chaos_options(parser, suppress=True)
    parser.set_defaults(handler=handler, parser=parser)
    return parser


def _add_chaos_options(parser: argparse.ArgumentParser, suppress: bool) -> None:
    switch = argparse.SUPPRESS if suppress else False
    parser.add_argument("--json", action="store_true", default=switch, help="print JSON instead of text")
    parser.add_argument("--no-color", action="store_true", default=switch, help="no colours (so does NO_COLOR)")
    parser.add_argument("--version", action=_Version)
