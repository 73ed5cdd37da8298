"""What processes write down, and how it is read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stem_actors.errors import ConfigError
from stem_chaos.history import (
    CannotRead,
    Phase,
    Recorder,
    Verb,
    read_history,
    run_directory,
    write_facts,
)
from tests.fixtures.probed import FACTS


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_facts(tmp_path, FACTS)
    return tmp_path


def test_an_operation_is_read_as_it_was_written(run: Path) -> None:
    recorder = Recorder(run, "w-1:ab")
    call = recorder.invoke(Verb.SETTLE, task_id="t", incarnation="w-1:ab", attempt=0, delivery_count=2, lease="7", verdict="ack")
    recorder.write(Verb.SETTLE, Phase.OK, call, task_id="t", detail={"verdict": "ack", "delay": None})
    asked, answered = read_history(run).operations
    assert (asked.verb, asked.phase, asked.process, asked.pid) == (Verb.SETTLE, Phase.INVOKE, "w-1:ab", os.getpid())
    assert (asked.task_id, asked.incarnation, asked.attempt, asked.delivery_count, asked.lease) == ("t", "w-1:ab", 0, 2, "7")
    assert asked.detail == {"verdict": "ack"}
    assert (answered.phase, answered.call, answered.lease, answered.attempt) == (Phase.OK, asked.call, None, None)
    assert answered.detail == {"verdict": "ack", "delay": None}
    assert answered.at > asked.at
    assert answered.wall == pytest.approx(asked.wall, abs=5)


def test_facts_are_read_as_they_were_written(run: Path) -> None:
    assert read_history(run).facts == FACTS


def test_operations_of_all_processes_come_by_time(run: Path) -> None:
    first, second = Recorder(run, "b"), Recorder(run, "a")
    for recorder in (first, second, first, second):
        recorder.happened(Verb.MEASURE)
    history = read_history(run)
    assert [each.process for each in history.operations] == ["b", "a", "b", "a"]


def test_operations_are_found_by_verb_and_phase(run: Path) -> None:
    recorder = Recorder(run, "p")
    recorder.invoke(Verb.RENEW)
    recorder.happened(Verb.START)
    recorder.happened(Verb.END)
    history = read_history(run)
    assert [each.verb for each in history.of(Verb.END, Verb.RENEW)] == [Verb.RENEW, Verb.END]
    assert list(history.of(Verb.RENEW, phase=Phase.OK)) == []


def test_each_call_has_a_number_of_its_own_in_its_process(run: Path) -> None:
    recorder = Recorder(run, "p")
    calls = [recorder.invoke(Verb.RENEW) for _ in range(3)]
    recorder.happened(Verb.START)
    assert len({each.call for each in read_history(run).operations} | set(calls)) == 4


def test_what_a_kill_cut_off_is_left_out(run: Path) -> None:
    recorder = Recorder(run, "p")
    recorder.happened(Verb.START, task_id="whole")
    (path,) = (run / "history").iterdir()
    with path.open("ab") as file:
        file.write(path.read_bytes()[:20])
    assert [each.task_id for each in read_history(run).operations] == ["whole"]


@pytest.mark.parametrize("line", ["no JSON", "{}", '{"verb": "start", "phase": "ok"}', '{"verb": "stray", "phase": "ok"}', "[]"])
def test_a_line_that_is_no_operation_is_an_error_that_names_its_place(run: Path, line: str) -> None:
    Recorder(run, "p").happened(Verb.START)
    (path,) = (run / "history").iterdir()
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CannotRead, match=f"{path.name}, line 2"):
        read_history(run)


@pytest.mark.parametrize("facts", [None, "", "[]", '{"suite": "s"}'])
def test_a_directory_without_the_facts_of_a_run_is_no_history(tmp_path: Path, facts: str | None) -> None:
    if facts is not None:
        (tmp_path / "run.json").write_text(facts)
    with pytest.raises(CannotRead, match="holds no history"):
        read_history(tmp_path)


def test_threads_do_not_mix_their_lines_and_share_one_file(run: Path) -> None:
    recorder = Recorder(run, "p")
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(200):
            recorder.happened(Verb.START, task_id=str(number), text="x" * 500)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = read_history(run)
    assert len(history.operations) == len({each.call for each in history.operations}) == 1600
    assert len(list((run / "history").iterdir())) == 1


FORKS = """
import os, sys
from pathlib import Path
from stem_chaos.history import Recorder, Verb
recorder = Recorder(Path(sys.argv[1]), "p")
recorder.happened(Verb.START)
if not os.fork():
    recorder.happened(Verb.END)
    os._exit(0)
os.wait()
"""


def test_a_fork_writes_into_a_file_of_its_own(run: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKS, str(run)], check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    start, end = read_history(run).operations
    assert (start.verb, end.verb) == (Verb.START, Verb.END)
    assert start.pid != end.pid
    assert len(list((run / "history").iterdir())) == 2


def test_a_name_with_a_slash_is_no_folder(run: Path) -> None:
    Recorder(run, "n-1/0").happened(Verb.START)
    assert [each.process for each in read_history(run).operations] == ["n-1/0"]


def test_several_operations_are_written_in_one_step(run: Path) -> None:
    recorder = Recorder(run, "p")
    lines = [recorder.line(Verb.DELIVER, Phase.OK, recorder.next_call(), task_id=str(number)) for number in range(100)]
    assert not (run / "history").exists()
    recorder.append(*lines)
    assert [each.task_id for each in read_history(run).operations] == [str(number) for number in range(100)]


def test_a_closed_recorder_goes_on_in_a_new_file(run: Path) -> None:
    recorder = Recorder(run, "p")
    recorder.close()
    recorder.happened(Verb.START)
    recorder.close()
    recorder.close()
    recorder.happened(Verb.END)
    recorder.close()
    assert [each.verb for each in read_history(run).operations] == [Verb.START, Verb.END]


def test_new_facts_take_the_place_of_the_old_at_once(run: Path) -> None:
    write_facts(run, FACTS)
    assert json.loads((run / "run.json").read_text())["suite"] == "test"
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_the_directory_of_the_run_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEM_CHAOS_DIRECTORY", str(tmp_path))
    assert run_directory() == tmp_path
    monkeypatch.setenv("STEM_CHAOS_DIRECTORY", " ")
    with pytest.raises(ConfigError, match="STEM_CHAOS_DIRECTORY"):
        run_directory()
