from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from stem_actors.errors import BrokerUnavailable, ConfigError, ResultsDisabled, StorageBroken, UnknownTask
from stem_cli import command, node_command
from stem_cli.command import guarded


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def run() -> NoReturn:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), 64),
        (UnknownTask("no"), 64),
        (BrokerUnavailable("no"), 70),
        (StorageBroken("no"), 70),
        (ResultsDisabled("no"), 70),
    ],
)
def test_an_error_becomes_a_message_and_an_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("stem x", raising(error)) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "stem x: no\n")


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("stem", raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("stem", raising(ZeroDivisionError("oops"))) == 70
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "bug in Stem" in printed


@pytest.mark.parametrize("words", [[], ["queue"], ["dlq"], ["task"], ["--json", "worker"]])
def test_a_group_without_a_command_prints_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 64
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "COMMAND" in printed.err


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("STEM_APP", "STEM_TASKS", "STEM_BROKER_URL", "STEM_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("_no_settings")
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "--app"),
        (["--app", "shop.tasks", "--broker", "memory://"], "memory broker"),
        (["--app", "shop.tasks", "--concurrency", "none"], "--concurrency"),
        (["--app", "shop.tasks", "--broker", "amqp://u:secret@h"], "sqlite://"),
    ],
)
def test_a_node_that_cannot_work_does_not_start(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert node_command.main(words) == 64
    printed = capsys.readouterr().err
    assert hint in printed
    assert "secret" not in printed
