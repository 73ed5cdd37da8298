"""The command line of `stem-node`."""

from __future__ import annotations

from stem_cli.parsers.base import SETTINGS_NOTE, CommandParser, Version, epilog

__all__ = ["build_node_parser"]


def build_node_parser() -> CommandParser:
    """The parser of `stem-node`. Each option is stored under the name of its setting."""
    parser = CommandParser(
        prog="stem-node",
        description="Run and supervise the Stem workers of this host.",
        epilog=epilog(
            "stem-node --app shop.tasks:app",
            "stem-node --app shop.tasks:app --workers 2 --concurrency 4 --queue mail --queue default --name web-1",
            note=SETTINGS_NOTE,
        ),
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
    operation.add_argument("--version", action=Version)
    return parser
