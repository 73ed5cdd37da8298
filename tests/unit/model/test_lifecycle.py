from __future__ import annotations

import pytest

from stem_actors.model.lifecycle import TRANSITIONS, Event, Precedence, TaskState, next_state

FINAL = {TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED}


def test_only_a_replay_leads_out_of_a_final_state() -> None:
    assert {state for state in TaskState if state.is_final} == FINAL
    assert {event for state, event in TRANSITIONS if state in FINAL} == {Event.REPLAYED}


@pytest.mark.parametrize("state", [state for state in TaskState if state not in FINAL])
def test_every_other_state_can_end_by_dead_letter_and_by_revocation(state: TaskState) -> None:
    assert next_state(state, Event.DEAD_LETTERED) is TaskState.FAILED
    assert next_state(state, Event.REVOKED) is TaskState.CANCELLED


def test_a_task_goes_from_the_queue_to_its_end() -> None:
    path = [TaskState.QUEUED]
    for event in (Event.RECEIVED, Event.RETRY, Event.RECEIVED, Event.RELEASED, Event.RECEIVED, Event.SUCCESS):
        after = next_state(path[-1], event)
        assert after is not None
        path.append(after)
    assert path[1:] == [
        TaskState.RUNNING,
        TaskState.RETRIED,
        TaskState.RUNNING,
        TaskState.QUEUED,
        TaskState.RUNNING,
        TaskState.SUCCEEDED,
    ]


@pytest.mark.parametrize(("state", "event"), [(TaskState.QUEUED, Event.SUCCESS), (TaskState.RUNNING, Event.EXPIRED)])
def test_other_ways_do_not_exist(state: TaskState, event: Event) -> None:
    assert next_state(state, event) is None


def test_a_newer_run_goes_before_a_more_final_state_of_an_older_one() -> None:
    final = TaskState.SUCCEEDED.finality
    ordered = [
        Precedence(0, 0, 1, TaskState.RUNNING.finality),
        Precedence(0, 0, 1, final),
        Precedence(0, 0, 2, 1),
        Precedence(0, 1, 1, 0),
        Precedence(1, 0, 0, 0),
    ]
    assert ordered == sorted(ordered)


def test_finality_grows_on_the_way_to_the_end() -> None:
    order = [TaskState.QUEUED, TaskState.RUNNING, TaskState.RETRIED, TaskState.FAILED]
    assert [state.finality for state in order] == [0, 1, 2, 3]
