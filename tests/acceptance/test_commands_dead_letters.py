"""Replaying and removing dead letters, and emptying queues, by the commands an operator types."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from stem_actors.codecs.msgpack import decode_delivery
from stem_actors.model.outcome import DeadLetter, ErrorInfo, Failed
from stem_actors.model.record import settlement
from tests.fixtures import hand_worker
from tests.fixtures.node import Place, eventually
from tests.fixtures.redis_server import new_namespace, own_server, shared_url
from tests.fixtures.shell import Shell
from tests.fixtures.terminal import Terminal


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.soak)])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    """On SQLite the commands find the database by default."""
    shell = Shell(tmp_path, {"STEM_LOG_FORMAT": "json"})
    if request.param == "redis":
        shell.environ |= {"STEM_BROKER_URL": shared_url(), "STEM_NAMESPACE": new_namespace()}
    return shell


@pytest.fixture
def app(shell: Shell) -> Iterator[Stem]:
    """The application whose tasks the commands find."""
    namespace = shell.environ.get("STEM_NAMESPACE", "stem")
    url = shell.environ.get("STEM_BROKER_URL", f"sqlite:///{shell.directory}/stem.db")
    with Stem(settings=Settings(broker_url=url, namespace=namespace)) as made:
        yield made


def bury(app: Stem, *names: str, queue: str = "default") -> list[str]:
    """Dead letters of these tasks, the first one oldest."""
    ids = []
    for name in names:
        ids.append(app.enqueue_by_name(name, queue=queue).id)
        hand_worker.fail(app, queue)
    return ids


def bury_many(app: Stem, count: int) -> None:
    """So many dead letters, all of one moment or nearly so."""
    broker = app.stores.broker

    @app.task(name="invoices.send")
    def send(number: int) -> None: ...

    app.enqueue_many(send.call(number) for number in range(count))
    intake = broker.open_intake(["default"], "hand#1")
    try:
        while count:
            taken = [decode_delivery(handout) for handout in intake.receive(min(count, 500), 5.0)]
            letter = DeadLetter("max-retries-exhausted")
            broker.settle([settlement(each, Failed(ErrorInfo("ValueError", "no")), letter, {}) for each in taken])
            count -= len(taken)
    finally:
        intake.close()


def dead(app: Stem, queue: str = "default") -> set[str]:
    return {entry.id for entry in app.stores.broker.dead_letters(queue).entries}


def dead_count(app: Stem) -> int:
    return sum(depth.dead for depth in app.stores.broker.depths(["default"]))


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
    broker = shell.environ.setdefault("STEM_BROKER_URL", f"sqlite:///{shell.directory}/stem.db")
    results = shell.environ["STEM_RESULT_BACKEND_URL"] = f"sqlite:///{shell.directory}/results.db"
    namespace = shell.environ.get("STEM_NAMESPACE", "stem")
    with Stem(settings=Settings(broker_url=broker, result_backend_url=results, namespace=namespace)) as app:
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


# ---------------------------------------------------------------- many of them


@pytest.mark.timeout(240)  # a machine with much else to do takes its time for so many
@pytest.mark.parametrize("action", ["replay", "purge"])
def test_what_an_interrupted_command_says_it_did_is_what_it_did(shell: Shell, app: Stem, action: str) -> None:
    there = 20_000 if action == "replay" else 5_000
    while True:
        bury_many(app, there)
        waiting = pending(app)
        process = shell.start("stem", "dlq", action, "-q", "default", "--limit", str(there), "--yes", "--json")
        eventually(lambda: dead_count(app) < there or process.poll() is not None, 60, hint="the first step")  # noqa: B023
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if dead_count(app) or there > 50_000:
            break
        there *= 2  # this test was held up for so long that all of them were done
    assert process.returncode == 130, err
    count = json.loads(out)["count"]
    assert 0 < count < there
    assert f"interrupted after {count:,} dead letters of {there:,}; the others are as they were" in err
    line = json.loads(err.splitlines()[0])
    assert (line["action"], line["count"]) == (f"dlq {action}", count)
    assert (dead_count(app), pending(app) - waiting) == (there - count, count if action == "replay" else 0)


def test_a_replay_of_many_goes_on_where_an_interrupted_one_ended(shell: Shell, app: Stem) -> None:
    bury_many(app, 3000)
    assert shell.json("stem", "dlq", "replay", "-q", "default", "--limit", "1200", "--yes", "--json")["count"] == 1200
    assert (dead_count(app), pending(app)) == (1800, 1200)
    done = shell.run("stem", "dlq", "replay", "-q", "default", "--limit", "20000", "--task", "invoices.send", "--yes")
    assert done.stdout.splitlines()[0] == "replayed 1,800 dead letters of queue 'default'"
    assert done.stdout.splitlines()[-1] == "and 1,790 more"
    assert (dead_count(app), pending(app)) == (0, 3000)


def test_a_replay_is_counted_once_by_the_workers(place: Place) -> None:
    handle = place.app.enqueue_by_name("jobs.fail", max_retries=0)
    node = place.start("--workers", "2")
    eventually(lambda: handle.status().state.is_final, hint="its failure")
    (letter,) = place.app.stores.broker.dead_letters("default").entries
    assert (letter.reason, handle.status().state) == ("max-retries-exhausted", "failed")
    place.shell.out("stem", "dlq", "replay", "-q", "default", "--yes")
    eventually(lambda: node.metric("stem_replay_count_total", queue="default"), hint="the count")
    eventually(lambda: node.metric("stem_dead_letters_total", queue="default") == 2, hint="its failing again")
    assert node.metric("stem_replay_count_total") == 1
    assert place.shell.json("stem", "dlq", "show", "-q", "default", "--id", handle.id)["envelope"]["replayCount"] == 1


# ---------------------------------------------------------------- on a terminal


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 64, 2), ("\n", 64, 2), ("\x04", 64, 2), ("\x03", 130, 2)]
)
@pytest.mark.parametrize("action", ["replay", "purge"])
@pytest.mark.parametrize("shell", ["sqlite"], indirect=True)
def test_on_a_terminal_a_command_asks_first(shell: Shell, app: Stem, action: str, answer: str, code: int, left: int) -> None:
    bury(app, "a", "b")
    with closing(Terminal(shell, "stem", "dlq", action, "--queue", "default")) as terminal:
        assert "2 dead letters of queue 'default'" in terminal.read_until("[y/N]")
        assert dead_count(app) == 2
        terminal.press(answer)
        assert terminal.wait() == code, terminal.printed
    assert dead_count(app) == left


def test_a_long_replay_shows_a_terminal_how_far_it_is_and_ends_after_the_step_at_hand(tmp_path: Path) -> None:
    command = ("stem", "dlq", "replay", "--queue", "default", "--limit", "5000")
    with own_server() as server, Stem(settings=Settings(broker_url=server.url)) as app:
        bury_many(app, 1200)
        shell = Shell(tmp_path, {"STEM_BROKER_URL": server.url})
        with closing(Terminal(shell, *command, environ={"NO_COLOR": "1"})) as terminal:
            assert "Run 1,200 dead letters" in terminal.read_until("[y/N]")
            os.kill(server.pid, signal.SIGSTOP)  # the first step takes until it goes on
            try:
                terminal.press("y\n")
                assert "replaying 1,200 dead letters" in terminal.read_until("0 of 1,200")
                terminal.press("\x03")
            finally:
                os.kill(server.pid, signal.SIGCONT)
            assert terminal.wait() == 130, terminal.printed
            assert "interrupted after 500 dead letters of 1,200; the others are as they were" in terminal.printed
        assert (dead_count(app), pending(app)) == (700, 500)


# ---------------------------------------------------------------- mistakes


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
    assert (line["action"], line["queue"], line["count"]) == ("queue purge", "default", 2)
    assert line["namespace"] == app.settings.namespace
    depths = {depth.queue: depth for depth in app.stores.broker.depths()}
    assert (depths["default"].inflight, depths["default"].dead, depths["other"].pending) == (1, 1, 1)
    assert shell.out("stem", "queue", "purge", "default", "--dead-letters", "-y") == "removed 1 task from queue 'default'\n"
    assert running.status().state == "queued"


def test_an_empty_queue_needs_no_confirmation(shell: Shell, app: Stem) -> None:
    app.enqueue_by_name("t")
    assert shell.out("stem", "queue", "purge", "nothing") == "removed 0 tasks from queue 'nothing'\n"
