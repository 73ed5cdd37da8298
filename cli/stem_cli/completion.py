"""`stem completion SHELL`: a script that completes our commands. It is static: nothing of ours runs at a press of TAB."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output
from stem_cli.parser import CommandParser, build_chaos_parser, build_node_parser, build_stem_parser

__all__ = ["run"]

_PARSERS: Mapping[str, Callable[[], CommandParser]] = {
    "stem": build_stem_parser,
    "stem-node": build_node_parser,
    "stem-chaos": build_chaos_parser,
}


def run(args: argparse.Namespace, output: Output) -> int:
    import shtab

    output.line(shtab.complete(_PARSERS[args.program](), shell=args.shell))
    return ExitCode.OK
