"""`stem completion SHELL`: a script that completes our commands. It is static: nothing of ours runs at a press of TAB."""

from __future__ import annotations

import argparse

from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output
from stem_cli.parsers.all import BUILDERS

__all__ = ["run"]


def run(args: argparse.Namespace, output: Output) -> int:
    import shtab

    output.line(shtab.complete(BUILDERS[args.program](), shell=args.shell))
    return ExitCode.OK
