from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from stem_actors.errors import BrokerUnavailable, ConfigError, ResultsDisabled, StorageBroken, UnknownTask
from stem_cli.edge import guarded


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
