"""`stem observe` and `stem top`: what the stores hold, and what nodes have counted."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_group

__all__ = ["add_observe", "add_top"]


def add_observe(commands: Commands) -> None:
    observe = add_group(commands, "observe", "look at queues, workers, dead letters and metrics", "stem observe queues --json")
    for name, handler, summary in (
        ("queues", "observe:queues", "count what is in each queue that holds something or that a worker works on"),
        ("workers", "observe:workers", "show how much each worker runs, and when it was last heard of"),
        ("dlq", "observe:dead_letters", "list the newest dead letters of all queues"),
    ):
        look = add_command(
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
    metrics = add_command(
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


def add_top(commands: Commands) -> None:
    top = add_command(
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
