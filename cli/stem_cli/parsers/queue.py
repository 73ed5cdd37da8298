"""`stem queue`: what waits, and whether workers receive it."""

from __future__ import annotations

from stem_cli.parsers.base import Commands
from stem_cli.parsers.common import add_command, add_consent, add_group, add_pausing

__all__ = ["add_queue"]


def add_queue(commands: Commands) -> None:
    queue = add_group(commands, "queue", "look at queues, pause or empty them", "stem queue list")
    add_command(queue, "list", "queue:list_queues", "count what is in each queue", "stem queue list --json")
    for verb, what, more in (
        (
            "pause",
            "let workers leave queues alone",
            "What runs goes on, what waits stays where it is, and tasks can be enqueued. ",
        ),
        ("resume", "let workers receive from paused queues again", ""),
    ):
        change = add_command(
            queue,
            verb,
            f"queue:{verb}",
            what,
            f"stem queue {verb} mail",
            f"stem queue {verb} mail reports --reason 'the mail server moves'",
            more=f"{more}It is stored, so it holds for workers that start later: exits with 0 also when no worker is up.",
        )
        change.add_argument("queue", metavar="QUEUE", nargs="+", help=f"the queue to {verb}")
        add_pausing(change, verb)
        change.add_argument("--timeout", metavar="DURATION", default="5s", help="wait so long for workers' answers (default: 5s)")
    empty = add_command(
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
    add_consent(empty)
