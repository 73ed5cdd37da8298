"""Nodes that cannot work say so and leave: 64 for what a user has to write otherwise, 70 for what an operator has to repair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fixtures.node import Place


def refuse(place: Place, *flags: str, app: str | None = "jobs") -> tuple[int, str]:
    """Exit code and messages of a node that has to give up at once."""
    named = () if app is None else ("--app", app)
    done = place.shell.run("stem-node", *named, "--admin", "off", "--log-level", "critical", *flags, timeout=20)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--broker", "memory:"], "memory broker"),
        (["--broker", "nosuch://x"], "--broker is 'nosuch://x'"),
        (["--visibility-timeout", "soon"], "--visibility-timeout is 'soon'"),
        (["--visibility-timeout", "0"], "--visibility-timeout is '0'"),
        (["--concurrency", "0"], "--concurrency is '0'"),
        (["--workers", "many"], "--workers is 'many'"),
        (["--admin", "here"], "--admin is 'here'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_what_does_not_parse_is_named(place: Place, flags: Sequence[str], hint: str) -> None:
    code, text = refuse(place, *flags)
    assert (code, hint in text, "Traceback" in text) == (64, True, False), text


def test_a_node_without_an_application_does_not_start(place: Place) -> None:
    code, text = refuse(place, app=None)
    assert (code, "--app" in text) == (64, True)


def test_an_application_that_cannot_be_imported_ends_the_node_with_its_traceback(place: Place) -> None:
    (place.directory / "broken.py").write_text("def load():\n    return 1 / 0\nload()\n")
    code, text = refuse(place, app="broken")
    assert code == 64
    assert "'broken' cannot be imported" in text
    assert 'broken.py", line 2, in load' in text
    assert "ZeroDivisionError: division by zero" in text


def test_a_module_that_does_not_exist_ends_the_node(place: Place) -> None:
    code, text = refuse(place, app="nowhere")
    assert (code, "No module named 'nowhere'" in text) == (64, True)


def test_a_module_without_an_application_is_told_which_attribute_is_missing(place: Place) -> None:
    (place.directory / "empty.py").write_text("")
    for app, attribute in (("empty", "app"), ("jobs:tasks", "tasks")):
        code, text = refuse(place, app=app)
        assert (code, f"no Stem application called '{attribute}'" in text) == (64, True), text


def test_an_application_that_enqueues_elsewhere_is_refused_and_both_places_are_named(place: Place) -> None:
    (place.directory / "elsewhere.py").write_text("from stem_actors import Stem\napp = Stem('sqlite:///own.db')\n")
    code, text = refuse(place, app="elsewhere")
    assert code == 64
    assert "sqlite:///own.db" in text
    assert "sqlite:///stem.db" in text


def test_one_file_under_two_names_is_one_place(place: Place) -> None:
    (place.directory / "same.py").write_text("import jobs\nfrom stem_actors import Stem\napp = Stem('sqlite:///stem.db')\n")
    place.start("--broker", place.url, app="same")


@pytest.mark.parametrize("flag", ["--broker", "--backend"])
def test_a_database_whose_directory_is_missing_ends_the_node_at_once(place: Place, flag: str) -> None:
    code, text = refuse(place, flag, f"sqlite:///{place.directory}/missing/stem.db")
    assert code == 70
    assert "missing/stem.db cannot be written" in text
    assert "Traceback" not in text


def test_a_file_that_is_no_database_ends_the_node_at_once(place: Place) -> None:
    (place.directory / "letter.txt").write_text("dear reader\n" * 100)
    code, text = refuse(place, "--broker", "sqlite:///letter.txt")
    assert (code, "letter.txt" in text, "Traceback" in text) == (70, True, False), text


def test_a_users_module_may_be_called_like_one_of_pythons(place: Place) -> None:
    """Worker and node import no user code: what lies in the working directory is not theirs."""
    for name in ("queue", "selectors", "msgpack"):
        Path(place.directory, f"{name}.py").write_text("raise SystemExit('a worker imported me')\n")
    node = place.start(is_ready=False)
    assert place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=20) == 3
    assert "imported me" not in node.log
