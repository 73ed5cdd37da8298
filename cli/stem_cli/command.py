"""`stem`: parses the command line, then imports and runs the one command it names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from stem_cli.edge import guarded
from stem_cli.exit_codes import ExitCode
from stem_cli.parsers.stem import build_stem_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = build_stem_parser().parse_args(argv)
    if args.handler is None:
        args.parser.print_help(sys.stderr)
        return ExitCode.USAGE

    def run() -> int:
        from stem_cli.output import Output

        module, _, function = args.handler.partition(":")
        if args.log_level is not None:
            _set_up_logging(vars(args))
        handler: Callable[..., int] = getattr(import_module(f"stem_cli.{module}"), function)
        return handler(args, Output(args.json, args.no_color))

    return guarded(args.parser.prog, run)


def _set_up_logging(flags: dict[str, object]) -> None:
    from stem_actors import logs
    from stem_actors.config import resolve

    logs.set_up_logging(resolve(flags, os.environ).settings.log_level, "pretty" if sys.stderr.isatty() else "plain")


if __name__ == "__main__":
    sys.exit(main())
