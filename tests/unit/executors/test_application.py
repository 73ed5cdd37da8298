from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors.executors import application
from stem_actors.executors.application import ApplicationSource, CannotLoad


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for modules, forgotten after the test."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def source(folder: Path, target: str, code: str, modules: tuple[str, ...] = ()) -> ApplicationSource:
    (folder / f"{target.partition(':')[0]}.py").write_text(code)
    return ApplicationSource(target, None, modules, str(folder))


APP = "from stem_actors import Stem\napp = Stem('memory://')\n@app.task(hard_time_limit=5.0, tags=['x'])\ndef mail(): ...\n"


def test_the_catalogue_describes_the_tasks_as_data(folder: Path) -> None:
    loaded = application.load(source(folder, "shop_one", APP))
    (task,) = loaded.catalogue["tasks"]
    assert (task["name"], task["is_async"], task["hard_time_limit"], task["tags"]) == ("shop_one.mail", False, 5.0, ["x"])
    assert loaded.registry.get("shop_one.mail").function.__name__ == "mail"


def test_modules_beside_the_application_add_their_tasks(folder: Path) -> None:
    (folder / "shop_more.py").write_text("from shop_two import app\n@app.task\nasync def ping(): ...\n")
    loaded = application.load(source(folder, "shop_two:app", APP, ("shop_more",)))
    assert [task["name"] for task in loaded.catalogue["tasks"]] == ["shop_two.mail", "shop_more.ping"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import not_a_module_anywhere", "No module named 'not_a_module_anywhere'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_an_import_that_fails_is_told_with_its_traceback(folder: Path, code: str, why: str) -> None:
    with pytest.raises(CannotLoad, match=why) as caught:
        application.load(source(folder, "shop_bad", code))
    assert caught.value.exit_code == 64
    assert "Traceback" in str(caught.value)


@pytest.mark.parametrize("target", ["shop_three:other", "shop_three:name.deeper", "shop_three:other.registry"])
def test_a_module_without_the_application_says_how_to_name_it(folder: Path, target: str) -> None:
    with pytest.raises(CannotLoad, match="--app shop_three:NAME"):
        application.load(source(folder, target, "other = 1\n"))
