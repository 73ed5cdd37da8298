"""Real executor processes, as the pool sees them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stem_actors.clock import SystemClock
from stem_actors.codecs.msgpack import decode_envelope, decode_payload, encode_envelope, encode_payload
from stem_actors.executors.application import ApplicationSource
from stem_actors.executors.child import Codec
from stem_actors.executors.frames import EndKind, FromExecutor, Handed, InterruptKind
from stem_actors.executors.launcher import ExecutorLauncher
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.sessions import kill_session
from stem_actors.model.envelope import Envelope
from tests.fixtures.waiting import SOON, Journal, is_running, until

APP = ApplicationSource("tests.fixtures.tasks_app:app")
CODEC = Codec(partial(decode_envelope, max_bytes=262_144), encode_payload)
NEVER = 60.0


class Executor:
    """One executor process and what it reported."""

    def __init__(self, process: ExecutorProcess) -> None:
        self.process = process
        self.frames: list[list[Any]] = []
        self._claims = 0

    @property
    def ended(self) -> list[list[Any]]:
        """Claim, kind and detail of each run that ended, in order."""
        return [[frame[1], EndKind(frame[2]), frame[3]] for frame in self.frames if frame[0] == FromExecutor.ENDED]

    @property
    def values(self) -> list[Any]:
        """What the runs returned, in order."""
        return [decode_payload(detail) for _, kind, detail in self.ended if kind is EndKind.RETURNED]

    def hand(self, *calls: tuple[Any, ...], **changes: Any) -> list[int]:
        """Hand over calls, each a task's name and its arguments; their claims."""
        tasks = [self._handed(name, args, changes) for name, *args in calls]
        self.process.hand(tasks)
        return [task.claim for task in tasks]

    def _handed(self, name: str, args: list[Any], changes: dict[str, Any]) -> Handed:
        self._claims += 1
        envelope = Envelope(1, f"id-{self._claims}", name, args, {}, {}, 1.0, None, 5, 3, None, "default", {})
        body = changes.get("body") or encode_envelope(envelope)
        plain = Handed(self._claims, body, 0, SystemClock().monotonic() + 60.0, None, False, False, 262_144)
        return plain._replace(**{name: value for name, value in changes.items() if name != "body"})

    def read_until(self, condition: Callable[[], Any], timeout: float = SOON) -> None:
        """Read its reports until `condition`."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not in time; so far {self.frames[-5:]}"
            self._write()
            if select.select([self.process.sock], [], [], 0.02)[0]:
                self.frames += self.process.receive()

    def _write(self) -> None:
        if self.process.wants_to_write:
            self.process.flush()

    def finish(self, count: int, timeout: float = SOON) -> list[list[Any]]:
        """Wait until so many runs have ended."""
        self.read_until(lambda: len(self.ended) >= count, timeout)
        return self.ended

    def wait_dead(self, timeout: float = SOON) -> None:
        until(self.process.has_exited, timeout, "the executor's end")
        self.frames += self.process.drain()
        until(lambda: self.process.process.exitcode is not None)

    def nudge_until(self, condition: Callable[[], Any]) -> None:
        """As the pool does: repeat the signal while the run goes on."""
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline, f"not in time; so far {self.frames[-5:]}"
            self.process.nudge()
            if select.select([self.process.sock], [], [], 0.05)[0]:
                self.frames += self.process.receive()


Launch = Callable[..., Executor]


@pytest.fixture
def launch() -> Iterator[Launch]:
    launchers: list[ExecutorLauncher] = []
    processes: list[ExecutorProcess] = []

    def start(method: str = "forkserver", source: ApplicationSource = APP, is_usable: bool = True) -> Executor:
        preload = ("stem_actors.executors.preload", "stem_actors.codecs.msgpack", "stem_actors.app")
        launcher = ExecutorLauncher(method, source, CODEC, "test", ("warning", "plain"), preload, lambda: None)
        launchers.append(launcher)
        launcher.prepare()
        ticket = launcher.launch(0)
        launched = launcher.launch_next()
        assert launched is not None
        assert launched[:2] == (0, ticket)
        assert isinstance(launched[2], ExecutorProcess), launched[2]
        executor = Executor(launched[2])
        processes.append(executor.process)
        if is_usable:
            executor.read_until(lambda: executor.frames)
            assert executor.frames[0][0] == FromExecutor.READY
        return executor

    yield start
    for launcher in launchers:
        launcher.reap_all(SOON)
    for process in processes:
        process.close()


@pytest.fixture
def executor(launch: Launch) -> Executor:
    return launch()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


# ---------------------------------------------------------------- hello


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_an_executor_says_hello_with_its_catalogue_and_runs_what_it_is_given(launch: Launch, method: str) -> None:
    executor = launch(method)
    catalogue = executor.frames[0][1]
    tasks = {task["name"]: task for task in catalogue["tasks"]}
    assert catalogue["broker"] is None
    assert tasks["soft"]["soft_time_limit"] == 0.3
    assert tasks["anap"]["is_async"]
    executor.hand(("echo", [1, "two"]), ("echo", None))
    executor.finish(2)
    assert executor.values == [[1, "two"], None]
    executor.process.request_stop()
    executor.wait_dead()
    assert executor.process.cause_of_death() == "exit code 0"


def test_an_executor_leads_a_session_of_its_own(executor: Executor) -> None:
    pid = executor.process.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid


@pytest.mark.parametrize(
    ("target", "why"),
    [("tests.fixtures.no_such_app", "ModuleNotFoundError"), ("tests.fixtures.waiting:app", "no Stem application")],
)
def test_an_application_that_cannot_be_loaded_is_reported_with_the_reason(launch: Launch, target: str, why: str) -> None:
    executor = launch(source=ApplicationSource(target), is_usable=False)
    executor.read_until(lambda: executor.frames)
    kind, code, text = executor.frames[0]
    assert (kind, code) == (FromExecutor.UNUSABLE, 64)
    assert why in text
    executor.wait_dead()


# ---------------------------------------------------------------- one after another


def test_tasks_run_in_order_and_each_outcome_is_written_before_the_next_claim(executor: Executor, journal: Journal) -> None:
    claims = executor.hand(*[("note", journal.path, f"w{n}") for n in range(40)])
    executor.finish(40)
    assert [claim for claim, _, _ in executor.ended] == claims
    assert journal.lines() == [f"w{n}" for n in range(40)]
    assert executor.process.handed == {}


def test_a_dead_executor_has_reported_all_that_it_ran(executor: Executor, journal: Journal) -> None:
    """Nobody reads while it runs; its reports wait in the kernel."""
    claims = executor.hand(*[("note", journal.path, f"w{n}") for n in range(30)], ("die", journal.path, "x", "kill"))
    executor.wait_dead()
    assert [claim for claim, _, _ in executor.ended] == claims[:30]
    assert list(executor.process.handed) == claims[30:]


def test_limits_are_counted_from_a_start_that_is_announced(executor: Executor) -> None:
    executor.hand(("echo", 1), announce=True)
    executor.finish(1)
    assert [frame[0] for frame in executor.frames[1:]] == [FromExecutor.STARTED, FromExecutor.ENDED]


def test_what_is_past_its_lease_is_not_started(executor: Executor, journal: Journal) -> None:
    executor.hand(("note", journal.path, "late"), deadline=SystemClock().monotonic() - 0.001)
    executor.hand(("note", journal.path, "in-time"))
    assert [kind for _, kind, _ in executor.finish(2)] == [EndKind.NOT_STARTED, EndKind.RETURNED]
    assert journal.lines() == ["in-time"]


def test_what_names_no_task_or_is_no_message_is_said_to_be_so(executor: Executor) -> None:
    executor.hand(("nobody", 1))
    executor.hand(("echo", 1), body=b"\xc1garbage")
    executor.hand(("echo", 1))
    ended = executor.finish(3)
    assert [kind for _, kind, _ in ended] == [EndKind.UNREGISTERED, EndKind.UNREADABLE, EndKind.RETURNED]
    assert ended[1][2][0] == "malformed"
    starts = [frame[4] for frame in executor.frames if frame[0] == FromExecutor.ENDED]
    assert starts[:2] == [0.0, 0.0]
    assert abs(starts[2] - time.time()) < 60


# ---------------------------------------------------------------- taken back


def test_what_waits_behind_a_long_run_is_taken_back_and_never_runs_there(executor: Executor, journal: Journal) -> None:
    head, *rest = executor.hand(("nap", journal.path, "head", 0.5), *[("note", journal.path, f"w{n}") for n in range(20)])
    journal.wait_for("head-starts")
    assert executor.process.take_back() == rest
    assert list(executor.process.handed) == [head]
    assert executor.process.take_back() == []
    (new,) = executor.hand(("note", journal.path, "new"))
    executor.finish(2)
    assert [claim for claim, _, _ in executor.ended] == [head, new]
    assert journal.lines() == ["head-starts", "head", "new"]


def test_a_stopped_executor_gives_back_what_it_has_not_started(executor: Executor, journal: Journal) -> None:
    os.kill(executor.process.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{executor.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    claims = executor.hand(*[("note", journal.path, f"w{n}") for n in range(5)])
    assert executor.process.take_back() == claims
    os.kill(executor.process.pid, signal.SIGCONT)
    executor.hand(("note", journal.path, "new"))
    executor.finish(1)
    assert journal.lines() == ["new"]


def test_a_task_is_either_started_or_taken_back_whatever_the_moment(executor: Executor) -> None:
    """More rounds than a generation's byte has values, at moments between at once and when all have run."""
    taken: list[int] = []
    handed: list[int] = []
    for number in range(600):
        handed += executor.hand(*[("echo", n) for n in range(4)])
        if number % 3:
            enough = len(executor.ended) + number % 3
            executor.read_until(lambda enough=enough: len(executor.ended) >= enough)  # type: ignore[misc]
        taken += executor.process.take_back()
        if number % 2:
            executor.read_until(lambda: not executor.process.handed)
    executor.read_until(lambda: not executor.process.handed)
    ran = [claim for claim, _, _ in executor.ended]
    assert sorted(ran + taken) == handed
    assert len(ran) >= 600


def test_more_than_the_socket_holds_is_handed_over_as_it_drains(executor: Executor, journal: Journal) -> None:
    executor.hand(("nap", journal.path, "head", 0.3))
    journal.wait_for("head-starts")
    executor.hand(*[("echo", "x" * 200_000) for _ in range(20)])
    assert executor.process.wants_to_write
    executor.finish(21)
    assert [len(value) for value in executor.values[1:]] == [200_000] * 20


def test_what_the_socket_did_not_hold_can_be_taken_back(executor: Executor, journal: Journal) -> None:
    (head,) = executor.hand(("nap", journal.path, "head", 0.5))
    journal.wait_for("head-starts")
    rest = executor.hand(*[("echo", "x" * 200_000) for _ in range(20)])
    assert executor.process.wants_to_write
    assert executor.process.take_back() == rest
    (new,) = executor.hand(("echo", 1))
    executor.finish(2)
    assert [claim for claim, _, _ in executor.ended] == [head, new]


# ---------------------------------------------------------------- death


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("kill", "signal 9 (SIGKILL)"),
        ("segfault", "signal 11 (SIGSEGV)"),
        ("exit", "exit code 3"),
        ("abort", "signal 6 (SIGABRT)"),
    ],
)
def test_one_is_guilty_of_a_death_and_the_rest_comes_back(executor: Executor, journal: Journal, how: str, cause: str) -> None:
    before, guilty, *after = executor.hand(
        ("note", journal.path, "before"), ("die", journal.path, "dies", how), *[("note", journal.path, f"w{n}") for n in range(5)]
    )
    executor.wait_dead()
    assert executor.process.take_back() == after
    assert list(executor.process.handed) == [guilty]
    assert [claim for claim, _, _ in executor.ended] == [before]
    assert executor.process.cause_of_death() == cause
    assert journal.lines() == ["before", "dies"]


def test_work_for_an_executor_that_has_just_died_comes_back(executor: Executor) -> None:
    os.kill(executor.process.pid, signal.SIGKILL)
    executor.wait_dead()
    claims = executor.hand(("echo", 1), ("echo", 2))
    assert executor.process.take_back() == claims
    assert executor.process.handed == {}


@pytest.mark.parametrize("how", ["exit", "interrupt", "memory", "generator", "recursion"])
def test_what_would_end_a_script_ends_the_run_only(executor: Executor, how: str) -> None:
    executor.hand(("leave", how), ("echo", "still here"))
    (_, kind, detail), _ = executor.finish(2)
    names = {
        "exit": "SystemExit",
        "interrupt": "KeyboardInterrupt",
        "memory": "MemoryError",
        "generator": "GeneratorExit",
        "recursion": "RecursionError",
    }
    assert (kind, detail[0]) == (EndKind.RAISED, names[how])
    assert executor.values == ["still here"]


def test_an_error_is_told_with_its_traceback_from_the_users_code_on(executor: Executor) -> None:
    executor.hand(("fail",), ("fail", "unreadable"), ("fail", "ü"), ("echo",))
    (_, _, plain), (_, _, unreadable), (_, _, text), (_, _, call) = executor.finish(4)
    assert plain[:2] == ["ValueError", "no such thing"]
    assert "tasks_app.py" in plain[2].splitlines()[1]
    assert plain[3] is True
    assert unreadable[:2] == ["Unreadable", "<its message cannot be read: SystemExit>"]
    assert text[1] == "ü"
    assert call[0] == "TypeError"


def test_an_error_that_the_policy_excludes_is_not_retryable(executor: Executor, journal: Journal) -> None:
    executor.hand(("picky", journal.path, "x"))
    assert executor.finish(1)[0][2][3] is False


@pytest.mark.parametrize("what", ["set", "huge", "raises", "surrogate", "keys", "naive"])
def test_a_result_that_cannot_travel_fails_the_run_for_good(executor: Executor, what: str) -> None:
    executor.hand(("give", what), ("echo", 1))
    (_, kind, detail), _ = executor.finish(2)
    assert (kind, detail[0], detail[3]) == (EndKind.RAISED, "ResultRejected", False)
    assert "task 'give' returned" in detail[1]
    assert executor.values == [1]


def test_a_result_that_nobody_wants_does_not_travel(executor: Executor) -> None:
    executor.hand(("give", "huge"), ignore_result=True)
    assert executor.finish(1) == [[1, EndKind.RETURNED, None]]


# ---------------------------------------------------------------- interrupts


@pytest.mark.parametrize("task", ["nap", "spin", "chatter"])
@pytest.mark.parametrize("kind", list(InterruptKind))
def test_an_interrupt_ends_the_run_that_it_names(executor: Executor, journal: Journal, task: str, kind: InterruptKind) -> None:
    claim, _ = executor.hand((task, journal.path, "x", NEVER), ("echo", "after"))
    journal.wait_for("x-starts")
    executor.process.interrupt(claim, kind)
    executor.nudge_until(lambda: len(executor.ended) == 2)
    (_, ended, detail), _ = executor.ended
    if kind is InterruptKind.SOFT_LIMIT:
        assert (ended, detail[0]) == (EndKind.RAISED, "SoftTimeLimitExceeded")
    else:
        assert (ended, detail) == (EndKind.INTERRUPTED, kind)
    assert executor.values == ["after"]


def test_an_interrupt_for_another_claim_touches_nothing(executor: Executor, journal: Journal) -> None:
    past, running = executor.hand(("echo", 1), ("nap", journal.path, "x", 0.4))
    journal.wait_for("x-starts")
    for claim in (past, running + 100):
        executor.process.interrupt(claim, InterruptKind.REVOKED)
    executor.finish(2)
    assert [kind for _, kind, _ in executor.ended] == [EndKind.RETURNED] * 2
    assert journal.lines() == ["x-starts", "x"]


def test_an_interrupt_waits_for_the_claim_that_it_names(executor: Executor, journal: Journal) -> None:
    """It came while another ran, and no signal follows it."""
    head, named, last = executor.hand(
        ("chatter", journal.path, "head", 0.4), ("nap", journal.path, "named", NEVER), ("echo", "last")
    )
    journal.wait_for("head-starts")
    executor.process.interrupt(named, InterruptKind.REVOKED)
    executor.finish(3)
    assert [(claim, kind) for claim, kind, _ in executor.ended] == [
        (head, EndKind.RETURNED),
        (named, EndKind.INTERRUPTED),
        (last, EndKind.RETURNED),
    ]


def test_interrupts_hit_no_code_of_ours(executor: Executor) -> None:
    """A storm of them over hundreds of short runs: each run ends once, and the stream stays readable."""
    executor.hand(("echo", 0))
    executor.finish(1)
    for _ in range(40):
        claims = executor.hand(*[("echo", n) for n in range(20)])
        for claim in claims:
            executor.process.interrupt(claim, InterruptKind.REVOKED)
        executor.read_until(lambda: not executor.process.handed)
    assert sorted(claim for claim, _, _ in executor.ended) == list(range(1, 802))
    assert {kind for _, kind, _ in executor.ended} <= {EndKind.RETURNED, EndKind.INTERRUPTED}
    assert not executor.process.has_exited()


def test_a_task_that_catches_its_interrupt_and_finishes_has_returned(executor: Executor, journal: Journal) -> None:
    (claim,) = executor.hand(("stubborn", journal.path, "x"))
    journal.wait_for("x-starts")
    executor.process.interrupt(claim, InterruptKind.SOFT_LIMIT)
    executor.nudge_until(lambda: executor.ended)
    assert executor.values == ["SoftTimeLimitExceeded"]


def test_an_interrupt_is_raised_in_the_main_thread_even_if_another_hears_of_it_first(
    executor: Executor, journal: Journal
) -> None:
    (claim,) = executor.hand(("talk_elsewhere", journal.path, "x"))
    journal.wait_for("x-starts")
    executor.process.interrupt(claim, InterruptKind.REVOKED)
    executor.nudge_until(lambda: executor.ended)
    assert set(executor.values[0]) >= {"main", "True"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_terminal_sends_is_for_the_worker_to_decide(executor: Executor, journal: Journal, number: signal.Signals) -> None:
    executor.hand(("nap", journal.path, "x", 0.3))
    journal.wait_for("x-starts")
    os.kill(executor.process.pid, number)
    executor.finish(1)
    assert executor.ended[0][1] is EndKind.RETURNED


# ---------------------------------------------------------------- processes of tasks


def test_a_task_may_fork_and_only_the_original_reports(executor: Executor, journal: Journal) -> None:
    executor.hand(("forks", journal.path, "x"), ("echo", "after"))
    executor.finish(2)
    assert executor.values == ["x", "after"]
    assert sorted(journal.lines()) == ["x", "x-copy"]


def test_a_task_may_use_processes_and_terminate_them(executor: Executor) -> None:
    executor.hand(("pools",))
    executor.finish(1)
    assert executor.values == [[[1, 2, 3], -signal.SIGTERM]]


def test_what_a_task_started_dies_with_its_executor(executor: Executor, journal: Journal) -> None:
    executor.hand(("leaves_processes", journal.path, "x"))
    pids = [int(pid) for pid in journal.wait_for("x-starts")]
    assert all(is_running(pid) for pid in pids)
    executor.process.kill()
    executor.wait_dead()
    kill_session(executor.process.pid, time.time())
    until(lambda: not any(is_running(pid) for pid in pids), what=f"the end of {pids}")


def test_what_a_task_started_is_found_when_the_executor_died_by_itself(executor: Executor, journal: Journal) -> None:
    executor.hand(("leaves_processes", journal.path, "x"))
    pids = [int(pid) for pid in journal.wait_for("x-starts")]
    os.kill(executor.process.pid, signal.SIGKILL)
    executor.wait_dead()
    assert kill_session(executor.process.pid, time.time()) == 3
    until(lambda: not any(is_running(pid) for pid in pids), what=f"the end of {pids}")


def test_a_session_that_started_later_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as later:
        try:
            until(lambda: os.getsid(later.pid) == later.pid)
            assert kill_session(later.pid, time.time() - 60) == 0
            assert later.poll() is None
        finally:
            later.kill()


def test_a_task_that_closes_its_executors_pipes_is_seen_to_be_lost(executor: Executor) -> None:
    (claim,) = executor.hand(("closes_all",))
    with pytest.raises(EOFError):
        executor.read_until(lambda: False)
    executor.process.kill()
    executor.wait_dead()
    assert list(executor.process.handed) == [claim]


# ---------------------------------------------------------------- coroutines


def test_coroutines_run_at_once_and_end_in_any_order(executor: Executor, journal: Journal) -> None:
    naps = [0.5, 0.3, 0.1]
    started = time.monotonic()
    executor.hand(*[("anap", journal.path, f"w{n}", nap) for n, nap in enumerate(naps * 30)])
    executor.finish(90)
    assert time.monotonic() - started < 15  # one after another they would take 27 s
    ends = [line for line in journal.lines() if not line.endswith("-starts")]
    assert ends.index("w2") < ends.index("w1") < ends.index("w0")
    assert sorted(claim for claim, _, _ in executor.ended) == list(range(1, 91))


def test_more_coroutines_may_come_while_some_run(executor: Executor, journal: Journal) -> None:
    for word in ("a", "b", "c"):
        executor.hand(("anap", journal.path, word, 0.3))
        journal.wait_for(f"{word}-starts")
    executor.finish(3)
    executor.hand(("afail",))
    executor.finish(4)
    assert executor.ended[3][1:] == [EndKind.RAISED, executor.ended[3][2]]
    assert executor.ended[3][2][:2] == ["ValueError", "no such thing"]


@pytest.mark.parametrize("kind", list(InterruptKind))
def test_one_coroutine_is_interrupted_and_its_neighbours_go_on(executor: Executor, journal: Journal, kind: InterruptKind) -> None:
    first, named, last = executor.hand(
        *[("anap", journal.path, word, nap) for word, nap in (("a", 0.5), ("b", NEVER), ("c", 0.5))]
    )
    journal.wait_for("c-starts")
    executor.process.interrupt(named, kind)
    executor.finish(3)
    ends = {claim: (end, detail) for claim, end, detail in executor.ended}
    assert [ends[claim][0] for claim in (first, last)] == [EndKind.RETURNED] * 2
    if kind is InterruptKind.SOFT_LIMIT:
        assert ends[named][1][0] == "SoftTimeLimitExceeded"
    else:
        assert ends[named] == (EndKind.INTERRUPTED, kind)


def test_a_coroutine_may_catch_its_interrupt_and_use_timeouts_afterwards(executor: Executor, journal: Journal) -> None:
    (claim,) = executor.hand(("astubborn", journal.path, "x"))
    journal.wait_for("x-starts")
    executor.process.interrupt(claim, InterruptKind.SOFT_LIMIT)
    executor.finish(1)
    assert executor.values == ["SoftTimeLimitExceeded"]


def test_an_interrupt_that_comes_together_with_its_coroutine_hits_it(executor: Executor, journal: Journal) -> None:
    executor.hand(("anap", journal.path, "first", NEVER))
    journal.wait_for("first-starts")
    for _ in range(30):
        claims = executor.hand(*[("anap", journal.path, "x", NEVER) for _ in range(5)])
        for claim in claims:
            executor.process.interrupt(claim, InterruptKind.REVOKED)
        executor.read_until(lambda: len(executor.process.handed) == 1)
    assert {kind for _, kind, _ in executor.ended} == {EndKind.INTERRUPTED}


def test_a_coroutine_may_fork_and_only_the_original_goes_on(executor: Executor, journal: Journal) -> None:
    executor.hand(("anap", journal.path, "neighbour", 0.3), ("aforks", journal.path, "x"))
    executor.finish(2)
    executor.hand(("anap", journal.path, "after", 0.05))
    executor.finish(3)
    assert journal.words() == {"neighbour-starts": 1, "neighbour": 1, "x": 1, "after-starts": 1, "after": 1}


# ---------------------------------------------------------------- orphans

_WORKER = """
import sys, time
from tests.integration.test_executor_process import *

def main():
    preload = ("stem_actors.executors.preload",)
    launcher = ExecutorLauncher(sys.argv[1], APP, CODEC, "test", ("warning", "plain"), preload, lambda: None)
    launcher.prepare()
    launcher.launch(0)
    executor = Executor(launcher.launch_next()[2])
    executor.read_until(lambda: executor.frames)
    executor.hand(("hold", sys.argv[2], "x", sys.argv[3], 30.0))
    time.sleep(60)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("how", ["sum", "pow", "match"])
def test_an_executor_dies_with_its_worker_even_inside_a_call_that_holds_the_gil(
    journal: Journal, tmp_path: Path, method: str, how: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(_WORKER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, str(script), method, journal.path, how], env=environment) as worker:
        try:
            (pid,) = journal.wait_for("x-starts")
        finally:
            worker.kill()
    killed = time.monotonic()
    until(lambda: not is_running(int(pid)), 5.0, "the executor's end")
    assert time.monotonic() - killed < 2.0  # some milliseconds on a machine with nothing else to do
