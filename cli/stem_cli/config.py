"""`stem config`: the settings in force."""

from __future__ import annotations

import argparse

from stem_actors.config import SETTINGS
from stem_cli.connection import resolved
from stem_cli.exit_codes import ExitCode
from stem_cli.output import Output

__all__ = ["show"]


def show(args: argparse.Namespace, output: Output) -> int:
    given = resolved(args)
    rows = []
    for setting in SETTINGS:
        value = getattr(given.settings, setting.name)
        rows.append((setting.variable, "" if value in (None, ()) else setting.grammar.show(value), given.sources[setting.name]))
    if output.as_json:
        names = ("variable", "value", "source")
        output.document([dict(zip(names, row, strict=True)) for row in rows])
    else:
        output.table(("SETTING", "VALUE", "SOURCE"), rows)
    return ExitCode.OK
