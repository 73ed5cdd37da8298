"""`stem dlq`: dead letters."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_consent, add_group, add_paging

__all__ = ["add_dlq"]


def add_dlq(commands: Commands) -> None:
    dlq = add_group(commands, "dlq", "look after dead letters: tasks set aside", "stem dlq list --queue default")
    dead_list = add_command(
        dlq, "list", "dlq:list_entries", "list dead letters, newest first", "stem dlq list --queue default --limit 10"
    )
    dead_list.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the tasks came from")
    add_paging(dead_list)
    dead_list.add_argument("--since", metavar="TIME", help="only those set aside at or after this ISO-8601 time")
    dead_show = add_command(
        dlq, "show", "dlq:show", "show one dead letter as JSON", "stem dlq show --queue default --id 0190b6c8-…"
    )
    dead_show.add_argument("--queue", "-q", metavar="QUEUE", required=True, help="queue the task came from")
    dead_show.add_argument("--id", metavar="ID", required=True, help="id of the task")
    _add_changes(dlq)


def _add_changes(dlq: Commands) -> None:
    replay = add_command(
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
    add_consent(replay)

    purge = add_command(
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
    add_consent(purge)
