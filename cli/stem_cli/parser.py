"""The command lines of `stem` and `stem-node`.

Man pages are built from this file where nothing else of ours is there, so it imports the standard library and rich-argparse only.
What a subcommand does is named as text (`handler`) and imported when it is run. Values are passed on as they were written:
`config.py` and the commands know their grammars. A test holds the flags here and the settings there together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["MEASUREMENTS", "TASK_STATES", "CommandParser", "build_node_parser", "build_stem_parser"]

TASK_STATES = ("queued", "running", "retried", "succeeded", "failed", "cancelled")
MEASUREMENTS = ("throughput", "payload", "enqueue", "bulk", "latency", "async", "recovery", "idle")
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

    task = _group(commands, "task", "look at single tasks", "stem task show 0190b6c8-8b1e-7c3a-9d2f-1a2b3c4d5e6f")
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

    tasks = _group(commands, "tasks", "look at the tasks of an application", "stem tasks ls --app shop.tasks:app")
    _command(
        tasks,
        "ls",
        "tasks:ls",
        "list the tasks that an application defines",
        "stem tasks ls --app shop.tasks:app",
        more="Imports the application named by --app or STEM_APP, and the modules in STEM_TASKS.",
    )

    queue = _group(commands, "queue", "look at queues, or empty one", "stem queue list")
    _command(queue, "list", "queue:list_queues", "count what is in each queue", "stem queue list --json")
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

    config = _group(commands, "config", "look at the settings", "stem config show")
    _command(config, "show", "config:show", "show every setting, its value and where it comes from", "stem config show --json")
    _add_health(commands)
    _add_bench(commands)
    return parser


def _add_dead_letter_changes(dlq: Any) -> None:
    replay = _command(
        dlq,
        "replay",
        "dlq:replay",
        "run dead letters again, oldest first",
        "stem dlq replay --queue default --dry-run",
        "stem dlq replay --queue mail --task shop.send_mail --since 2025-01-31T08:00:00Z --limit 100 --yes",
        more="Each gets a new budget of retries and keeps its counters. Asks first; without a terminal it needs --yes. "
        "Exits with 1 when an --id is not there.",
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
        more="Asks first; without a terminal it needs --yes. Exits with 1 when an --id is not there.",
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
