from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from stem_actors.actors.crew import Crew
from stem_actors.actors.executor_watch import UNKILLABLE_AFTER, ExecutorWatch
from stem_actors.actors.slots import Slot
from stem_actors.executors.process import ExecutorProcess
from stem_actors.executors.vital_signs import VitalSigns, read_vital_signs
from stem_actors.model.outcome import Outcome
from tests.fixtures.waiting import until

NOW = 100.0


class RecordingCrew:
    """Two slots with processes that need not exist; remembers whom it was to kill."""

    def __init__(self) -> None:
        self.slots = [Slot(index, is_async=False, width=1, is_ready=True) for index in range(2)]
        for slot in self.slots:
            slot.process = cast(ExecutorProcess, SimpleNamespace(pid=slot.index, handed={}))
        self.killed: list[Slot] = []

    def kill(self, slot: Slot, verdicts: Mapping[int, Outcome]) -> None:
        assert verdicts == {}
        self.killed.append(slot)


@pytest.fixture
def crew() -> RecordingCrew:
    return RecordingCrew()


def watch(crew: RecordingCrew, signs: dict[int, VitalSigns], max_memory: int | None = None) -> ExecutorWatch:
    return ExecutorWatch(cast(Crew, crew), 8.0, max_memory, lambda pid: signs.get(pid))


def test_an_executor_is_killed_when_it_has_been_stopped_for_as_long_as_one_waits(crew: RecordingCrew) -> None:
    watched = watch(crew, {0: VitalSigns(True, 0), 1: VitalSigns(False, 0)})
    for second in range(8):
        assert watched.look(NOW + second).stopped == [crew.slots[0]]
        assert crew.killed == []
    assert watched.look(NOW + 8).stopped == []
    assert crew.killed == [crew.slots[0]]


def test_an_executor_that_goes_on_again_starts_from_nothing(crew: RecordingCrew) -> None:
    signs = {0: VitalSigns(True, 0)}
    watched = watch(crew, signs)
    for second in range(30):
        signs[0] = VitalSigns(second % 7 != 0, 0)
        watched.look(NOW + second)
    assert crew.killed == []


def test_the_time_in_which_the_worker_itself_was_stopped_does_not_count(crew: RecordingCrew) -> None:
    watched = watch(crew, {0: VitalSigns(True, 0)})
    watched.look(NOW)
    assert watched.look(NOW + 3600).stopped == [crew.slots[0]]
    assert crew.killed == []


def test_what_was_killed_and_lives_on_is_unkillable(crew: RecordingCrew) -> None:
    watched = watch(crew, {0: VitalSigns(True, 0)})
    crew.slots[0].killed_at = NOW
    assert watched.look(NOW + UNKILLABLE_AFTER).unkillable == []
    assert watched.look(NOW + UNKILLABLE_AFTER + 0.1).unkillable == [crew.slots[0]]


def test_what_was_told_to_leave_and_stays_is_killed(crew: RecordingCrew) -> None:
    watched = watch(crew, {})
    crew.slots[1].dismissed_at = NOW
    watched.look(NOW + 9)
    assert crew.killed == []
    watched.look(NOW + 11)
    assert crew.killed == [crew.slots[1]]


def test_executors_are_weighed_once_a_second_and_named_only_after_a_task(crew: RecordingCrew) -> None:
    signs = {0: VitalSigns(False, 99), 1: VitalSigns(False, 100)}
    watched = watch(crew, signs, max_memory=100)
    assert watched.look(NOW).heavy == []
    crew.slots[0].runs = crew.slots[1].runs = 1
    assert watched.look(NOW + 0.9).heavy == []
    assert watched.look(NOW + 1.0).heavy == [crew.slots[1]]
    assert [slot.resident for slot in crew.slots] == [99, 100]
    crew.slots[1].is_leaving = True
    assert watched.look(NOW + 2.0).heavy == []


def test_the_kernel_tells_of_a_process_whether_it_is_stopped() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            signs = read_vital_signs(process.pid)
            assert signs is not None
            assert not signs.is_stopped
            os.kill(process.pid, signal.SIGSTOP)
            until(lambda: (told := read_vital_signs(process.pid)) is not None and told.is_stopped)
        finally:
            process.kill()
    assert read_vital_signs(process.pid) is None


def test_the_kernel_tells_how_much_memory_a_process_has() -> None:
    before = read_vital_signs(os.getpid())
    kept = b"x" * (64 << 20)
    after = read_vital_signs(os.getpid())
    assert before is not None
    assert after is not None
    assert before.resident > 1 << 20
    assert after.resident - before.resident > len(kept) // 2
