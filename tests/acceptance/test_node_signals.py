"""How a node leaves, for each signal: what is handed back, to whom, and with which exit code.

`STEM_MAX_DELIVERIES=1` makes every charge visible: a task that were charged one death would be a dead letter at once.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

import pytest

from stem_actors.model.lifecycle import TaskState
from tests.fixtures.node import Place, eventually, is_alive


@pytest.fixture
def strict(place: Place) -> Place:
    place.environ["STEM_MAX_DELIVERIES"] = "1"
    return place


def loaded(place: Place, running: int = 2, waiting: int = 2) -> list[str]:
    """Enqueue tasks that run until `go`, and so many more that the node holds without room to run them."""
    handles = [place.app.enqueue_by_name("jobs.wait_for", ["go"]) for _ in range(running)]
    place.await_runs(count=running)
    handles += [place.app.enqueue_by_name("jobs.wait_for", ["go"]) for _ in range(waiting)]
    return [handle.id for handle in handles]


def wait_until_held(place: Place, count: int) -> None:
    eventually(lambda: [d for d in place.app.stores.broker.depths() if d.inflight >= count], hint=f"{count} leases")


def ends(place: Place, ids: Sequence[str]) -> dict[str, str]:
    """State of each task, once all have ended."""
    records = {task_id: place.app.client.wait(task_id, 20) for task_id in ids}
    return {task_id: "no end" if record is None else str(record.state) for task_id, record in records.items()}


def assert_uncharged(place: Place, ids: Sequence[str]) -> None:
    """All ended well, and no run was a retry; a charge would have made them dead letters."""
    assert set(ends(place, ids).values()) == {TaskState.SUCCEEDED}
    assert {run["attempt"] for run in place.runs()} == {0}


# ---------------------------------------------------------------- idle


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_idle_node_leaves_at_once(place: Place, number: signal.Signals) -> None:
    node = place.start()
    began = time.monotonic()
    node.send(number)
    assert node.wait(5) == 0
    assert time.monotonic() - began < 2
    assert node.everything() == set()


@pytest.mark.parametrize("processes", [1, 2, 4, 5], ids=["node", "worker", "forkserver", "executor"])
def test_a_node_that_is_told_to_leave_while_it_starts_leaves(place: Place, processes: int) -> None:
    node = place.start(is_ready=False)
    eventually(lambda: "starts 1 worker" in node.log and len(node.everything()) >= processes, hint=f"{processes} processes")
    node.send(signal.SIGTERM)
    assert node.wait(10) == 0
    assert node.everything() == set()


@pytest.mark.parametrize("processes", [2, 4, 5], ids=["worker", "forkserver", "executor"])
def test_ctrl_c_while_a_node_starts_says_no_more_than_it_has_to(place: Place, processes: int) -> None:
    node = place.start(is_ready=False)
    eventually(lambda: "starts 1 worker" in node.log and len(node.everything()) >= processes, hint=f"{processes} processes")
    node.send_group(signal.SIGINT)
    assert node.wait(10) == 0
    assert node.everything() == set()
    assert "Traceback" not in node.log, node.log


# ---------------------------------------------------------------- TERM


def test_unstarted_tasks_go_to_another_node_at_once_and_running_ones_finish(strict: Place) -> None:
    (strict.directory / "gated.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('gate').exists(): time.sleep(0.01)\nfrom jobs import app\n"
    )
    other = strict.start("--visibility-timeout", "60s", app="gated", is_ready=False)
    leaving = strict.start("--visibility-timeout", "60s")
    eventually(lambda: "no executor is ready" in other.get("/readyz")[2], hint="a second node that is all but ready")
    ids = loaded(strict)
    wait_until_held(strict, 4)
    leaving.send(signal.SIGTERM)
    strict.open_gate("gate")
    strict.await_runs(count=4, timeout=3)
    assert {run["id"] for run in strict.runs(what="start")} == set(ids)
    eventually(lambda: "node: leaving" in leaving.get("/readyz")[2], hint="its leaving in /readyz")
    assert leaving.get("/readyz")[0] == 503
    assert leaving.get("/livez")[0] == 200
    strict.open_gate()
    assert leaving.wait(5) == 0
    assert_uncharged(strict, ids)
    assert len(strict.runs(what="start")) == len(strict.runs(what="end")) == 4
    assert other.metric("stem_redeliveries_total") == 0


def test_a_lease_is_renewed_while_its_node_drains(strict: Place) -> None:
    leaving = strict.start("--visibility-timeout", "1s")
    ids = loaded(strict, running=1, waiting=0)
    strict.start("--visibility-timeout", "1s")
    leaving.send(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        leaving.wait(3)
    assert len(strict.runs(ids[0])) == 1, "another took it while it ran"
    strict.open_gate()
    assert leaving.wait(5) == 0
    assert_uncharged(strict, ids)


def test_at_the_drain_deadline_running_tasks_are_handed_back_and_run_elsewhere(strict: Place) -> None:
    leaving = strict.start("--visibility-timeout", "60s", "--drain-timeout", "1s")
    ids = loaded(strict, waiting=0)
    strict.start("--visibility-timeout", "60s")
    leaving.send(signal.SIGTERM)
    strict.await_runs(count=4, timeout=5)
    assert leaving.wait(5) == 0
    strict.open_gate()
    assert_uncharged(strict, ids)
    assert all(len(strict.runs(task_id, "start")) == 2 for task_id in ids)


def test_coroutines_are_handed_back_at_the_drain_deadline_too(strict: Place) -> None:
    (strict.directory / "loops.py").write_text(
        "import asyncio\nfrom jobs import HERE, app, write\n"
        "@app.task\n"
        "async def wait_for(name):\n"
        "    write('start')\n"
        "    while not (HERE / name).exists(): await asyncio.sleep(0.01)\n"
    )
    leaving = strict.start("--visibility-timeout", "60s", "--drain-timeout", "1s", app="loops")
    ids = [strict.app.enqueue_by_name("loops.wait_for", ["go"]).id for _ in range(8)]
    strict.await_runs(count=8)
    strict.start("--visibility-timeout", "60s", app="loops")
    leaving.send(signal.SIGTERM)
    strict.await_runs(count=16, timeout=5)
    assert leaving.wait(5) == 0
    strict.open_gate()
    assert_uncharged(strict, ids)


def test_the_workers_of_a_node_leave_side_by_side(strict: Place) -> None:
    leaving = strict.start("--workers", "3", "--concurrency", "1", "--drain-timeout", "2s", "--visibility-timeout", "60s")
    loaded(strict, running=3, waiting=0)
    began = time.monotonic()
    leaving.send(signal.SIGTERM)
    assert leaving.wait(8) == 0
    assert time.monotonic() - began < 2 + 2
    assert leaving.everything() == set()


def test_a_task_that_ignores_the_deadline_is_killed_after_its_grace_and_runs_elsewhere(strict: Place) -> None:
    strict.environ["STEM_SOFT_GRACE_PERIOD"] = "1s"
    leaving = strict.start("--visibility-timeout", "60s", "--drain-timeout", "500ms")
    task = strict.app.enqueue_by_name("jobs.hold_the_interpreter", [8])
    strict.await_runs(task.id)
    strict.start("--visibility-timeout", "60s")
    began = time.monotonic()
    leaving.send(signal.SIGTERM)
    assert leaving.wait(6) == 0
    assert time.monotonic() - began < 4
    strict.await_runs(task.id, count=2, timeout=3)
    assert {run["attempt"] for run in strict.runs(task.id)} == {0}
    assert leaving.everything() == set()


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGTERM, signal.SIGTERM],
        [signal.SIGQUIT],
        [signal.SIGTERM, signal.SIGQUIT],
        [signal.SIGINT, signal.SIGINT, signal.SIGINT],
    ],
    ids=lambda numbers: "-".join(number.name for number in numbers),
)
def test_a_hard_leave_takes_no_time_and_charges_nobody(strict: Place, numbers: Sequence[signal.Signals]) -> None:
    leaving = strict.start("--visibility-timeout", "60s")
    task = strict.app.enqueue_by_name("jobs.hold_the_interpreter", [8])  # deaf to anything but a kill
    ids = loaded(strict, running=1, waiting=2)
    strict.await_runs(task.id)
    wait_until_held(strict, 4)
    strict.start("--visibility-timeout", "60s", "--concurrency", "4")
    for count, number in enumerate(numbers, start=1):
        leaving.send(number)
        eventually(lambda: leaving.log.count("node n1 leaves") == count or leaving.process.poll() is not None)  # noqa: B023
    assert leaving.wait(2) == 0
    strict.await_runs(task.id, count=2, timeout=3)
    strict.open_gate()
    assert_uncharged(strict, ids)
    assert leaving.everything() == set()


def test_a_second_interrupt_stops_tasks_that_listen(strict: Place) -> None:
    leaving = strict.start("--visibility-timeout", "60s")
    ids = loaded(strict, waiting=0)
    leaving.send(signal.SIGINT)
    eventually(lambda: "(warm)" in leaving.log)
    leaving.send(signal.SIGINT)
    assert leaving.wait(3) == 0
    strict.open_gate()
    strict.start()
    assert_uncharged(strict, ids)
    assert "(hard)" not in leaving.log


# ---------------------------------------------------------------- TERM to the whole group


def test_a_signal_to_the_whole_group_is_like_one_to_the_node(strict: Place) -> None:
    leaving = strict.start("--visibility-timeout", "60s")
    ids = loaded(strict)
    wait_until_held(strict, 4)
    strict.start("--visibility-timeout", "60s")
    leaving.send_group(signal.SIGTERM)
    strict.await_runs(count=4, timeout=2)
    assert leaving.process.poll() is None, "it left before what it runs had ended"
    strict.open_gate()
    assert leaving.wait(5) == 0
    assert_uncharged(strict, ids)
    assert len(strict.runs(what="start")) == 4, "none was started twice"


def test_what_comes_while_a_node_leaves_is_not_held_by_it(strict: Place) -> None:
    """A fetch that was under way brings deliveries after the last look: they are handed back, too."""
    strict.start("--visibility-timeout", "60s")
    for _ in range(3):
        leaving = strict.start("--visibility-timeout", "60s")
        handles = []
        for number in range(40):
            handles.append(strict.app.enqueue_by_name("jobs.note", [number]))
            if number == 10:
                leaving.send(signal.SIGTERM)
        assert leaving.wait(5) == 0
        assert [handle.get(timeout=5) for handle in handles] == list(range(40))


@pytest.mark.parametrize("actor", ["consumer", "executor_pool", "settler"])
def test_an_actor_that_dies_while_its_worker_leaves_does_not_keep_it(strict: Place, actor: str) -> None:
    leaving = strict.start("--enable-chaos", "--visibility-timeout", "60s")
    ids = loaded(strict, waiting=0)
    leaving.send(signal.SIGTERM)
    eventually(lambda: "n1-1 leaves" in leaving.log)
    assert strict.ask_worker("n1-1", "kill_actor", {"actor": actor}).status == "ok"
    ids += [strict.app.enqueue_by_name("jobs.wait_for", ["go"]).id for _ in range(4)]
    eventually(lambda: f"restarting '{actor}'" in leaving.log, hint="its restart")
    strict.open_gate()
    assert leaving.wait(10) == 0
    assert len({run["id"] for run in strict.runs()}) == 2, "it went on fetching"
    strict.start("--visibility-timeout", "60s")
    assert_uncharged(strict, ids)


# ---------------------------------------------------------------- PID 1


def test_a_node_works_as_pid_1(place: Place) -> None:
    """Orphans of anybody come to it and are reaped; a signal ends it, though for PID 1 none has a default."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a PID namespace")
    node = place.start("--queue", "default", prefix=[*unshare, "--kill-child"])
    inside = eventually(lambda: [pid for pid in node.everything() if _pid_inside(pid) == 1], hint="PID 1")[0]
    assert place.app.enqueue_by_name("jobs.add", [1, 2]).get(timeout=20) == 3
    task = place.app.enqueue_by_name("jobs.leave_an_orphan")
    (orphan,) = task.get(timeout=20)
    eventually(lambda: not _zombies(inside), hint=f"the reaping of orphan {orphan}")
    subprocess.run(["kill", "-TERM", str(inside)], check=True)
    assert node.wait(5) == 0
    assert not is_alive(inside)


def _pid_inside(pid: int) -> int:
    """The pid that a process has in its own namespace."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return int(next(line for line in status if line.startswith("NSpid:")).split()[-1])
    except OSError:
        return -1


def _zombies(parent: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(parent).children() if child.status() == psutil.STATUS_ZOMBIE]
