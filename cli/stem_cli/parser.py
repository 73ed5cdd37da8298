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

__all__ = ["CommandParser", "build_node_parser", "build_stem_parser"]

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

    task = _group(commands, "task", "look at one task", "stem task show 0190b6c8-8b1e-7c3a-9d2f-1a2b3c4d5e6f")
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
    wait.add_argument("--timeout", metavar="DURATION", help="give up after so long (default: never)")

    tasks = _group(commands, "tasks", "look at the tasks of an application", "stem tasks ls --app shop.tasks:app")
    _command(
        tasks,
        "ls",
        "tasks:ls",
        "list the tasks that an application defines",
        "stem tasks ls --app shop.tasks:app",
        more="Imports the application named by --app or STEM_APP, and the modules in STEM_TASKS.",
    )

    queue = _group(commands, "queue", "look at queues", "stem queue list")
    _command(queue, "list", "queue:list_queues", "count what is in each queue", "stem queue list --json")

    dlq = _group(commands, "dlq", "look at dead letters: tasks set aside", "stem dlq list --queue default")
    dead_list = _command(
        dlq, "list", "dlq:list_entries", "list dead letters, newest first", "stem dlq list --queue default --limit 10"
    )
    dead_list.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the tasks came from")
    dead_list.add_argument("--limit", metavar="N", type=int, default=50, help="this many at most (default: 50)")
    dead_list.add_argument("--offset", metavar="N", type=int, default=0, help="leave out the first N")
    dead_list.add_argument("--since", metavar="TIME", help="only those set aside at or after this ISO-8601 time")
    dead_show = _command(dlq, "show", "dlq:show", "show one dead letter as JSON", "stem dlq show --queue default --id 0190b6c8-…")
    dead_show.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the task came from")
    dead_show.add_argument("--id", metavar="ID", required=True, help="id of the task")

    worker = _group(commands, "worker", "look at workers", "stem worker status --once")
    status = _command(
        worker, "status", "worker:status", "show the last heartbeat of each worker", "stem worker status --once --json"
    )
    status.add_argument("--once", action="store_true", help="print a snapshot and exit (what it does anyway)")
    status.add_argument("--worker", "-w", metavar="ID", action="append", default=[], help="only this worker; repeatable")
    status.add_argument(
        "--heartbeat-interval",
        metavar="DURATION",
        dest="expected_interval",  # not the setting's name: this is about other processes'
        help="a heartbeat older than this is marked stale (default: STEM_HEARTBEAT_INTERVAL)",
    )

    config = _group(commands, "config", "look at the settings", "stem config show")
    _command(config, "show", "config:show", "show every setting, its value and where it comes from", "stem config show --json")
    return parser


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
    group.add_argument(
        "--log-level", "-l", metavar="LEVEL", default=default, help="debug, info, warning or error (STEM_LOG_LEVEL)"
    )
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
    processes.add_argument("--pool", metavar="forkserver|spawn", help="how executors are started (default: forkserver)")
    processes.add_argument(
        "--drain-timeout", metavar="DURATION", help="time for running tasks to end when it leaves (default: 20s)"
    )

    operation = parser.add_argument_group("operation")
    operation.add_argument(
        "--admin", metavar="HOST:PORT", help="where /livez, /readyz and /metrics are (default: 127.0.0.1:9808); off"
    )
    operation.add_argument("--log-level", "-l", metavar="LEVEL", help="debug, info, warning, error or critical (default: info)")
    operation.add_argument(
        "--log-format", metavar="FORMAT", help="pretty, plain or json (default: pretty on a terminal, else json)"
    )
    operation.add_argument("--enable-chaos", action="store_true", default=None, help="obey commands that kill actors; for tests")
    operation.add_argument("--config", metavar="FILE", help="TOML file with settings (STEM_CONFIG)")
    operation.add_argument("--version", action=_Version)
    return parser
