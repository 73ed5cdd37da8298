"""The start and the end of a run are written down in pairs, wherever an interrupt finds the run."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from stem_actors import SoftTimeLimitExceeded, TaskContext
from stem_chaos.history import Operation, Recorder, Verb, read_history, write_facts
from stem_chaos.points import Points
from stem_chaos.recording import Recording
from tests.fixtures.probed import FACTS


def context(id: str) -> TaskContext:
    return TaskContext(cast(Any, None), 1, id, "t", 0, {}, {})


def interrupted_at(step: int, call: Callable[[], Any]) -> tuple[bool, Any]:
    """Raise an interrupt before the byte code number `step` of ours that `call` comes to: whether it came so far, and its end."""
    left = step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "/stem_chaos/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                raise SoftTimeLimitExceeded("now")  # this ends the tracing, too
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        end: Any = call()
    except BaseException as error:
        end = error
    finally:
        sys.settrace(before)
    return left <= 0, end


def works(run: TaskContext) -> str:
    return "worked"


def fails(run: TaskContext) -> str:
    raise ValueError("failed")


@pytest.mark.parametrize("task", [works, fails])
def test_an_interrupt_between_any_two_byte_codes_costs_no_end(tmp_path: Path, task: Callable[[TaskContext], str]) -> None:
    write_facts(tmp_path, FACTS)
    ends: dict[str, Any] = {}
    has_come = True
    while has_come:
        step = len(ends) + 1
        recorder = Recorder(tmp_path, "p")
        recording = Recording(recorder, Points(tmp_path, lambda name: None))
        run = context(str(step))
        has_come, ends[run.id] = interrupted_at(step, partial(recording.execute, run, task))
        recorder.close()
    assert len(ends) > 200
    told: dict[str, list[Operation]] = defaultdict(list)
    for each in read_history(tmp_path).operations:
        assert each.task_id is not None
        told[each.task_id].append(each)
    for id, operations in told.items():
        assert [each.verb for each in operations] == [Verb.START, Verb.END], id
        outcome = operations[1].detail
        if isinstance(ends[id], str):
            assert outcome == {"outcome": "returned"}
        elif isinstance(ends[id], ValueError):
            assert outcome == {"outcome": "raised", "error": "ValueError"}
    for id in ends.keys() - told.keys():
        assert isinstance(ends[id], SoftTimeLimitExceeded)
    outcomes = Counter(type(end).__name__ for end in ends.values())
    assert set(outcomes) == {"SoftTimeLimitExceeded", type(ends[str(len(ends))]).__name__}
    assert min(outcomes.values()) > 20


def test_an_end_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    recording = Recording(Recorder(tmp_path / "file", "p"), Points(tmp_path, lambda name: None))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        recording.execute(context("t"), works)
