"""The parsers of all our programs, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stem_cli.parsers.base import CommandParser
from stem_cli.parsers.chaos import build_chaos_parser
from stem_cli.parsers.node import build_node_parser
from stem_cli.parsers.stem import build_stem_parser

__all__ = ["BUILDERS"]

BUILDERS: Mapping[str, Callable[[], CommandParser]] = {
    "stem": build_stem_parser,
    "stem-node": build_node_parser,
    "stem-chaos": build_chaos_parser,
}
