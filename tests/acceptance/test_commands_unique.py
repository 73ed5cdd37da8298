"""`stem task unique`: who holds a key, and giving it free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import Settings, Stem, Task
from stem_actors.model.json_names import parse_time
from tests.fixtures import unique_app
from tests.fixtures.redis_server import new_namespace, shared_url
from tests.fixtures.shell import Shell


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.soak), "redis"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stem]:
    url = shared_url() if request.param == "redis" else f"sqlite:///{tmp_path}/stem.db"
    with Stem(settings=Settings(broker_url=url, namespace=new_namespace())) as app:
        yield app


@pytest.fixture
def tasks(app: Stem) -> dict[str, Task[..., str]]:
    return unique_app.define(app)


@pytest.fixture
def shell(app: Stem, tmp_path: Path) -> Shell:
    environ = {"STEM_BROKER_URL": app.settings.broker_url, "STEM_NAMESPACE": app.settings.namespace, "STEM_LOG_FORMAT": "plain"}
    return Shell(tmp_path, environ)


def test_a_key_is_shown_with_its_owner_and_those_it_kept_out(shell: Shell, tasks: dict[str, Task[..., str]]) -> None:
    digest = tasks["digest"].options(unique_key="user-42")
    first = digest.enqueue("j", "w")
    digest.enqueue("j", "w")
    shown = shell.json("stem", "task", "unique", "user-42", "--json")
    assert set(shown) == {"key", "items", "freed"}
    (item,) = shown["items"]
    assert set(item) == {"queue", "key", "owner", "claimedAt", "expiresAt", "refusals", "duplicates"}
    assert (item["queue"], item["key"], item["owner"], item["refusals"]) == ("default", "user-42", first.id, 1)
    assert item["expiresAt"] is None
    (duplicate,) = item["duplicates"]
    assert set(duplicate) == {"taskId", "timestamp"}
    assert parse_time(duplicate["timestamp"]) >= parse_time(item["claimedAt"])
    text = shell.out("stem", "task", "unique", "user-42")
    assert first.id in text
    assert "the task's end" in text


def test_a_window_says_until_when_it_lasts(shell: Shell, tasks: dict[str, Task[..., str]]) -> None:
    tasks["window"].options(unique_key="w").enqueue("j", "w")
    (item,) = shell.json("stem", "task", "unique", "w", "--json")["items"]
    assert parse_time(item["expiresAt"]) - parse_time(item["claimedAt"]) == pytest.approx(600, abs=0.01)


def test_a_key_is_given_free_in_one_queue_or_in_all_and_that_is_noted(shell: Shell, tasks: dict[str, Task[..., str]]) -> None:
    digest = tasks["digest"].options(unique_key="k")
    first, mail = digest.enqueue("j", "w"), digest.options(queue="mail").enqueue("j", "w")
    done = shell.run("stem", "task", "unique", "k", "--queue", "mail", "--free")
    assert done.returncode == 0
    assert "freed the key in 1 queue" in done.stdout
    assert "task unique --free by an operator" in done.stderr
    assert digest.options(queue="mail").enqueue("j", "w") != mail
    assert digest.enqueue("j", "w") == first
    assert shell.json("stem", "task", "unique", "k", "--free", "--json")["freed"] == 2
    assert digest.enqueue("j", "w") != first


def test_a_key_that_nobody_holds_is_nothing_found(shell: Shell, tasks: dict[str, Task[..., str]]) -> None:
    tasks["plain"].enqueue("j", "w")  # else there might be no file
    code, text = shell.code("stem", "task", "unique", "nobody")
    assert (code, text.strip()) == (1, "no task holds the key 'nobody'")
    done = shell.run("stem", "task", "unique", "nobody", "--json")
    assert done.returncode == 1
    assert '"items": []' in done.stdout


def test_a_task_shows_which_key_it_holds_and_a_strict_one_is_refused_as_a_mistake(
    shell: Shell, tasks: dict[str, Task[..., str]]
) -> None:
    shell.environ["STEM_APP"] = "tests.fixtures.unique_app:app"
    words = ("stem", "enqueue", "strict", "--args", '["j", "w"]')
    first = shell.out(*words).strip()
    code, text = shell.code(*words)
    assert code == 64
    assert first in text
    assert "stem task unique" in text
