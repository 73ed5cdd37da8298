"""The command line of `stem`: all its commands, in the order in which the help lists them."""

from __future__ import annotations

from stem_cli.parsers.base import SETTINGS_NOTE, CommandParser, epilog, subcommands_of
from stem_cli.parsers.common import add_global_options
from stem_cli.parsers.db import add_db
from stem_cli.parsers.dlq import add_dlq
from stem_cli.parsers.installation import add_bench, add_completion, add_config, add_doctor, add_health
from stem_cli.parsers.observe import add_observe, add_top
from stem_cli.parsers.queue import add_queue
from stem_cli.parsers.task import add_enqueue, add_task, add_tasks
from stem_cli.parsers.worker import add_worker

__all__ = ["build_stem_parser"]


def build_stem_parser() -> CommandParser:
    """The parser of `stem`. The namespace holds `handler` (`module:function`, None for a group) and settings by their names."""
    parser = CommandParser(
        prog="stem",
        description="Operate a Stem task system.",
        epilog=epilog(
            "stem enqueue shop.tasks.send_mail --args '[\"a@b.c\"]' --wait 10s", "stem queue list --json", note=SETTINGS_NOTE
        ),
    )
    add_global_options(parser, suppress=False)
    commands = subcommands_of(parser)
    add_enqueue(commands)
    add_task(commands)
    add_tasks(commands)
    add_queue(commands)
    add_db(commands)
    add_dlq(commands)
    add_worker(commands)
    add_observe(commands)
    add_top(commands)
    add_config(commands)
    add_health(commands)
    add_doctor(commands)
    add_bench(commands)
    add_completion(commands)
    return parser
