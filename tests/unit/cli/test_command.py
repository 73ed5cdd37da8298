from __future__ import annotations

import pytest

from stem_cli import command, node_command


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
