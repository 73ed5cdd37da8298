"""Replaying and removing dead letters, and emptying queues, by the commands an operator types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from tests.fixtures import hand_worker
from tests.fixtures.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"STEM_LOG_FORMAT": "json"})


@pytest.fixture
def app(shell: Shell) -> Iterator[Stem]:
    """The application whose database the commands find by default."""
    with Stem(settings=Settings(broker_url=f"sqlite:///{shell.directory}/stem.db")) as made:
        yield made


def bury(app: Stem, *names: str, queue: str = "default") -> list[str]:
    """Dead letters of these tasks, the first one oldest."""
    ids = []
    for name in names:
        ids.append(app.enqueue_by_name(name, queue=queue).id)
        hand_worker.fail(app, queue)
    return ids


def dead(app: Stem, queue: str = "default") -> set[str]:
    return {entry.id for entry in app.stores.broker.dead_letters(queue).entries}


def pending(app: Stem) -> int:
    return sum(depth.pending for depth in app.stores.broker.depths())


def test_the_oldest_dead_letters_run_again_and_their_records_say_so(shell: Shell, app: Stem) -> None:
    first, second, third = bury(app, "a", "b", "c")
    done = shell.run("stem", "dlq", "replay", "--queue", "default", "-l", "2", "--yes", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["queue"], told["dryRun"], told["count"], told["delayMs"]) == ("default", False, 2, 0)
    assert [(entry["id"], entry["task"], entry["attempt"]) for entry in told["entries"]] == [(first, "a", 1), (second, "b", 1)]
    assert (dead(app), pending(app)) == ({third}, 2)
    shown = shell.json("stem", "task", "show", first, "--json")
    assert (shown["state"], shown["attempt"], shown["meta"]["replayCount"]) == ("queued", 1, 1)
    assert shown["meta"]["lastReplayReason"] == "max-retries-exhausted"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", shown["meta"]["lastReplayAt"])
    assert {hand_worker.take(app).envelope.id for _ in range(2)} == {first, second}


def test_a_replay_leaves_a_line_in_the_audit_log(shell: Shell, app: Stem) -> None:
    (task_id,) = bury(app, "a")
    done = shell.run("stem", "dlq", "replay", "-q", "default", "-y", "--delay", "5m")
    line = json.loads(done.stderr)
    assert (line["logger"], line["action"], line["queue"], line["count"]) == ("stem.audit", "dlq replay", "default", 1)
    assert (line["delay"], line["ids"]) == (300.0, [task_id])
    assert "@" in line["who"]
    assert app.stores.broker.depths()[0].delayed == 1
    assert done.stdout.splitlines()[0] == "replayed 1 dead letter of queue 'default'"


def test_a_dry_run_shows_what_would_run_again_and_changes_nothing(shell: Shell, app: Stem) -> None:
    ids = bury(app, *"abcdefghijkl")
    done = shell.run("stem", "dlq", "replay", "-q", "default", "--dry-run", "--limit", "11")
    first, header, *rows, more = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert first == "would replay 11 dead letters of queue 'default'"
    assert [cell.strip() for cell in header.split("|")] == ["ID", "Task", "Attempts", "Reason"]
    assert ([row.split(" | ")[0] for row in rows], more) == (ids[:10], "and 1 more")
    assert dead(app) == set(ids)


@pytest.mark.parametrize("words", [["dlq", "replay"], ["dlq", "purge"]])
def test_without_a_terminal_nothing_happens_unless_confirmed(shell: Shell, app: Stem, words: list[str]) -> None:
    ids = bury(app, "a", "b")
    code, text = shell.code("stem", *words, "--queue", "default")
    assert (code, "--yes" in text, "2 dead letters" in text) == (64, True, True)
    assert dead(app) == set(ids)


def test_a_replay_is_narrowed_by_task_reason_id_and_time(shell: Shell, app: Stem) -> None:
    a, b, c = bury(app, "a", "b", "a")

    def chosen(*words: str) -> list[str]:
        told = shell.json("stem", "dlq", "replay", "-q", "default", "--dry-run", "--json", *words)
        return [entry["id"] for entry in told["entries"]]

    assert chosen("--task", "a") == [a, c]
    assert chosen("--task", "a", "--limit", "1") == [a]
    assert chosen("--reason", "poison") == []
    assert chosen("--reason", "max-retries-exhausted", "--task", "b") == [b]
    assert chosen("--since", "2999-01-01") == []
    assert chosen("--id", c, "--id", b) == [b, c]


def test_an_id_that_is_not_there_is_told_by_exit_code_1(shell: Shell, app: Stem) -> None:
    (task_id,) = bury(app, "a")
    done = shell.run("stem", "dlq", "replay", "-q", "default", "--id", task_id, "--id", "nobody", "--yes", "--json")
    assert (done.returncode, json.loads(done.stdout)["missing"], pending(app)) == (1, ["nobody"], 1)
    assert shell.run("stem", "dlq", "purge", "-q", "default", "--id", "nobody", "--yes").returncode == 1


def test_nothing_to_replay_is_fine(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.out("stem", "dlq", "replay", "-q", "default") == "replayed 0 dead letters of queue 'default'\n"


def test_results_with_a_store_of_their_own_hear_of_a_replay(shell: Shell) -> None:
    broker, results = f"sqlite:///{shell.directory}/stem.db", f"sqlite:///{shell.directory}/results.db"
    shell.environ |= {"STEM_BROKER_URL": broker, "STEM_RESULT_BACKEND_URL": results}
    with Stem(settings=Settings(broker_url=broker, result_backend_url=results)) as app:
        (task_id,) = bury(app, "a")
        shell.out("stem", "dlq", "replay", "-q", "default", "--yes")
        record = app.handle(task_id).status()
    assert (record.state, record.meta["replayCount"]) == ("queued", 1)


def test_dead_letters_are_removed_newest_first_when_limited(shell: Shell, app: Stem) -> None:
    first, second, _ = bury(app, "a", "b", "c")
    assert shell.json("stem", "dlq", "purge", "-q", "default", "--dry-run", "--json") == {
        "queue": "default",
        "dryRun": True,
        "count": 3,
    }
    done = shell.run("stem", "dlq", "purge", "-q", "default", "--limit", "1", "--yes")
    assert done.stdout == "removed 1 dead letter of queue 'default'\n"
    line = json.loads(done.stderr)
    assert (line["action"], line["count"]) == ("dlq purge", 1)
    assert dead(app) == {first, second}
    assert shell.json("stem", "dlq", "purge", "-q", "default", "--id", first, "--yes", "--json")["count"] == 1
    assert dead(app) == {second}
    assert shell.json("stem", "dlq", "purge", "-q", "default", "--since", "2999-01-01", "--yes", "--json")["count"] == 0
    assert shell.json("stem", "dlq", "purge", "-q", "default", "--since", "2020-01-01", "--yes", "--json")["count"] == 1
    assert dead(app) == set()


@pytest.mark.parametrize(
    "words",
    [
        ["dlq", "replay", "-q", "default", "--limit", "0", "--yes"],
        ["dlq", "replay", "-q", "default", "--since", "lately", "--yes"],
        ["dlq", "replay", "-q", "default", "--delay", "soon", "--yes"],
        ["dlq", "purge", "-q", "default", "--limit", "0", "--yes"],
        ["dlq", "replay", "--yes"],
        ["queue", "purge", "--yes"],
    ],
)
def test_bad_arguments_change_nothing(shell: Shell, app: Stem, words: list[str]) -> None:
    ids = bury(app, "a")
    assert shell.code("stem", *words)[0] == 64
    assert dead(app) == set(ids)


# ---------------------------------------------------------------- queues


def test_a_queue_is_emptied_but_for_what_runs(shell: Shell, app: Stem) -> None:
    bury(app, "dead")
    running = app.enqueue_by_name("t")
    hand_worker.take(app)
    app.enqueue_by_name("t")
    app.enqueue_by_name("t", countdown=3600.0)
    app.enqueue_by_name("t", queue="other")
    code, text = shell.code("stem", "queue", "purge", "default")
    assert (code, "2 waiting tasks" in text) == (64, True)
    done = shell.run("stem", "queue", "purge", "default", "--yes", "--json")
    assert json.loads(done.stdout) == {"queue": "default", "deadLetters": False, "count": 2}
    line = json.loads(done.stderr)
    assert (line["action"], line["queue"], line["count"], line["namespace"]) == ("queue purge", "default", 2, "stem")
    depths = {depth.queue: depth for depth in app.stores.broker.depths()}
    assert (depths["default"].inflight, depths["default"].dead, depths["other"].pending) == (1, 1, 1)
    assert shell.out("stem", "queue", "purge", "default", "--dead-letters", "-y") == "removed 1 task from queue 'default'\n"
    assert running.status().state == "queued"


def test_an_empty_queue_needs_no_confirmation(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.out("stem", "queue", "purge", "nothing") == "removed 0 tasks from queue 'nothing'\n"
