"""`stem-node`: settings from the command line, then the node itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from stem_cli.edge import guarded
from stem_cli.parsers.node import build_node_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until it is told to leave, and return its exit code."""
    args = build_node_parser().parse_args(argv)
    return guarded("stem-node", lambda: _run(vars(args)))


def _run(flags: dict[str, object]) -> int:
    from dataclasses import replace

    from stem_actors.config import resolve
    from stem_actors.errors import ConfigError

    given = resolve(flags, os.environ)
    settings = given.settings
    if settings.autoscale is not None and given.sources["concurrency"] == "default":
        settings = replace(settings, concurrency=settings.autoscale[1])
    if settings.app is None and not settings.tasks:
        raise ConfigError(
            "there are no tasks to run: name the application, such as --app shop.tasks:app (or STEM_APP, STEM_TASKS)"
        )
    if settings.broker_url.lower().startswith("memory"):
        raise ConfigError(
            "a memory broker lives inside one program, so nothing could enqueue for this node. "
            "Use --broker sqlite:///stem.db, or app.worker() inside the program."
        )
    if settings.revoke_store_url is not None and settings.revoke_store_url.lower().startswith("memory"):
        raise ConfigError(
            "revocations in a worker's memory (STEM_REVOKE_STORE_URL) would reach nobody else and end with it. "
            "Name a file or a server, or leave it out: they are kept with the results then."
        )
    if settings.burst and settings.reload:
        raise ConfigError("--burst leaves when the work is done, and --reload waits for changes: choose one of them")
    from stem_actors.node import run
    from stem_cli.pid_file import PidFile

    with PidFile(Path(settings.pidfile)).kept() if settings.pidfile else nullcontext():
        return run(settings)


if __name__ == "__main__":
    sys.exit(main())
