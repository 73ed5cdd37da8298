from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest

from stem_actors.config import SETTINGS, Settings
from stem_cli.parsers.node import build_node_parser
from stem_cli.parsers.stem import build_stem_parser


def options_of(parser: argparse.ArgumentParser) -> dict[str, tuple[str, ...]]:
    """The flags of a parser by the name they are stored under."""
    return {action.dest: tuple(action.option_strings) for action in parser._actions if action.option_strings}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands, at every depth."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


COMMANDS = list(parsers(build_stem_parser()))
DECLARED = {setting.name: setting.flags for setting in SETTINGS if setting.flags}


def test_the_flags_of_stem_node_are_the_settings_that_have_one() -> None:
    own = {"help", "config", "==SUPPRESS=="}
    assert {name: flags for name, flags in options_of(build_node_parser()).items() if name not in own} == DECLARED


@pytest.mark.parametrize("parser", COMMANDS, ids=lambda parser: parser.prog)
def test_a_setting_has_the_same_flags_in_every_command(parser: argparse.ArgumentParser) -> None:
    names = {setting.name for setting in SETTINGS}
    stored = {name: flags for name, flags in options_of(parser).items() if name in names}
    # Of `-l` alone there are two: the level of `stem-node`, and here, as everywhere else in the field, the limit of a list.
    declared = {**DECLARED, "log_level": ("--log-level",)}
    assert {name: declared.get(name) for name in stored} == stored
    assert not any(action.dest in names for action in parser._actions if not action.option_strings)


def test_what_the_help_calls_the_default_is_the_default() -> None:
    for action in build_node_parser()._actions:
        told = re.search(r"\(default: ([\w:/.]+)\)", action.help or "")
        setting = next((each for each in SETTINGS if each.name == action.dest), None)
        if told and setting and told[1] != "the":
            value = getattr(Settings(), setting.name)
            value = ("default",) if value == () else value
            assert told[1] == setting.grammar.show(value), action.dest


@pytest.mark.parametrize("parser", [*COMMANDS, build_node_parser()], ids=lambda parser: parser.prog)
def test_every_command_has_help_with_an_example(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert re.search(r"\n  example|\nexamples?:\n  stem", text)
    assert parser.description
    assert all(action.help for action in parser._actions if not isinstance(action, argparse._SubParsersAction))


@pytest.mark.parametrize("parser", [*COMMANDS, build_node_parser()], ids=lambda parser: parser.prog)
def test_every_example_parses(parser: argparse.ArgumentParser) -> None:
    for line in re.findall(r"^  (stem(?:-node)? .*)$", parser.epilog or "", re.MULTILINE):
        program, *words = shlex.split(re.split(r" [>|] ", line)[0])
        (build_node_parser() if program == "stem-node" else build_stem_parser()).parse_args(words)


@pytest.mark.parametrize("parser", COMMANDS, ids=lambda parser: parser.prog)
def test_every_handler_exists(parser: argparse.ArgumentParser) -> None:
    handler = parser.get_default("handler")
    if handler is not None:
        module, _, function = handler.partition(":")
        assert callable(getattr(import_module(f"stem_cli.{module}"), function))


def test_global_options_stand_before_and_after_the_command() -> None:
    parse = build_stem_parser().parse_args
    for words in (["--json", "--broker", "sqlite:///x", "queue", "list"], ["queue", "list", "--json", "--broker", "sqlite:///x"]):
        args = parse(words)
        assert (args.json, args.broker_url, args.handler) == (True, "sqlite:///x", "queue:list_queues")
    args = parse(["--broker", "sqlite:///a", "queue", "--json", "list", "--broker", "sqlite:///b"])
    assert (args.json, args.broker_url, args.namespace) == (True, "sqlite:///b", None)


def test_a_flag_must_be_written_out() -> None:
    with pytest.raises(SystemExit) as caught:
        build_stem_parser().parse_args(["--brok", "x", "queue", "list"])
    assert caught.value.code == 64


@pytest.mark.parametrize(
    "words",
    [["nope"], ["queue", "list", "--nope"], ["dlq", "list"], ["task", "show"], ["dlq", "list", "-q", "a", "--limit", "x"]],
)
def test_usage_errors_end_with_64_and_say_so_on_stderr(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_stem_parser().parse_args(words)
    assert caught.value.code == 64
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--help" in printed.err


def loaded_for_help(module: str) -> set[str]:
    """Every module that a program, whose command line is in `module`, has loaded when it has printed its help."""
    script = (
        f"import sys\nfrom {module} import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("module", ["stem_cli.command", "stem_cli.node_command", "stem_chaos.command"])
def test_help_loads_nothing_but_the_parser(module: str) -> None:
    loaded = {name.partition(".")[0] for name in loaded_for_help(module)}
    assert loaded & {"stem_actors", "rich", "msgpack", "sqlite3", "pykka", "asyncio"} == set()


@pytest.mark.parametrize(("module", "parser"), [("stem_cli.node_command", "node"), ("stem_chaos.command", "chaos")])
def test_a_program_loads_the_parser_of_no_other(module: str, parser: str) -> None:
    loaded = {name for name in loaded_for_help(module) if name.startswith("stem_cli.parsers.")}
    assert loaded == {"stem_cli.parsers.base", f"stem_cli.parsers.{parser}"}
