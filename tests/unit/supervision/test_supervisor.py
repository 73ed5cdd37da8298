"""The supervisor in threads: strategies, order, intensity, escalation, and crashes at the worst moment."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from stem_actors.supervision import (
    Backoff,
    ChildSpec,
    Crashed,
    DuplicateChild,
    Intensity,
    IntensityExceeded,
    Normal,
    Restart,
    Shutdown,
    Start,
    StemActor,
    Strategy,
    Stuck,
    Supervisor,
    SupervisorFailed,
    actor,
    start_tree,
    supervisor,
)
from tests.unit.supervision.actors import PATIENCE, SOON, Block, Boom, Leave, Note, Probe, Recall, Recorder, running, spec

BOOM = Boom(ValueError("boom"))
CRASHED = Crashed("ValueError", "boom")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="stem.supervision")


def entries(recorder: Recorder, verb: str) -> list[str]:
    return [entry.split()[1] for entry in recorder.entries if entry.startswith(verb)]


@pytest.mark.parametrize("strategy", Strategy)
def test_children_start_in_order_and_stop_in_reverse(recorder: Recorder, strategy: Strategy) -> None:
    with running(recorder, *(spec(name, recorder) for name in "abc"), strategy=strategy) as tree:
        assert tree.wait_started(PATIENCE)
        assert entries(recorder, "start") == ["a", "b", "c"]
        assert tree.stop(PATIENCE) == Shutdown()
    assert entries(recorder, "stop") == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("strategy", "again"),
    [(Strategy.ONE_FOR_ONE, ["b"]), (Strategy.REST_FOR_ONE, ["b", "c"]), (Strategy.ONE_FOR_ALL, ["a", "b", "c"])],
)
def test_a_strategy_restarts_whom_it_says(recorder: Recorder, strategy: Strategy, again: list[str]) -> None:
    with running(recorder, *(spec(name, recorder) for name in "abc"), strategy=strategy) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("b", BOOM)
        recorder.wait_for_life(again[-1], 2)
        assert entries(recorder, "start") == ["a", "b", "c", *again]
        assert entries(recorder, "stop") == [name for name in reversed(again) if name != "b"]
        for name in again:
            (restarted,) = recorder.restarts(name)
            assert (restarted.cause, restarted.reason) == ("b", CRASHED if name == "b" else Shutdown())
        assert {child.id: child.generation for child in tree.statistics().children} == {
            name: 2 if name in again else 1 for name in "abc"
        }


@pytest.mark.parametrize(
    ("restart", "message", "lives"),
    [
        (Restart.PERMANENT, Leave(), 2),
        (Restart.PERMANENT, BOOM, 2),
        (Restart.TRANSIENT, Leave(), 1),
        (Restart.TRANSIENT, BOOM, 2),
        (Restart.TEMPORARY, Leave(), 1),
        (Restart.TEMPORARY, BOOM, 1),
    ],
)
def test_a_restart_type_says_after_which_end_a_child_lives_again(
    recorder: Recorder, restart: Restart, message: object, lives: int
) -> None:
    with running(recorder, spec("a", recorder, restart=restart), spec("b", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", message)
        recorder.wait_for_exit("a")
        if lives == 2:
            recorder.wait_for_life("a", 2)
        else:
            tree.tell("b", BOOM)  # by the time b lives again, a would have been started too
            recorder.wait_for_life("b", 2)
            assert tree.statistics().children[0].state == "done"
        assert entries(recorder, "start").count("a") == lives


def test_a_temporary_sibling_that_is_taken_along_is_not_started_again(recorder: Recorder) -> None:
    specs = [spec("a", recorder), spec("b", recorder, restart=Restart.TEMPORARY), spec("c", recorder, restart=Restart.TRANSIENT)]
    with running(recorder, *specs, strategy=Strategy.ONE_FOR_ALL) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", BOOM)
        recorder.wait_for_life("c", 2)
        assert entries(recorder, "start") == ["a", "b", "c", "a", "c"]


def test_more_restarts_than_the_intensity_allows_fail_the_supervisor(recorder: Recorder) -> None:
    specs = [spec(name, recorder, intensity=Intensity(2, 60.0)) for name in "abc"]
    with running(recorder, *specs) as tree:
        assert tree.wait_started(PATIENCE)
        for life in (2, 3):
            tree.tell("b", BOOM)
            recorder.wait_for_life("b", life)
        tree.tell("a", BOOM)  # the count is per child
        recorder.wait_for_life("a", 2)
        tree.tell("b", BOOM)
        assert tree.wait(PATIENCE) == IntensityExceeded("b", CRASHED)
    assert entries(recorder, "stop") == ["c", "a"]
    assert recorder.of(SupervisorFailed) == [SupervisorFailed("root", IntensityExceeded("b", CRASHED))]
    statistics = {child.id: child.restarts for child in tree.statistics().children}
    assert statistics == {"a": {"crashed": 1}, "b": {"crashed": 2}, "c": {}}


def test_intensity_exceeded_climbs_to_the_root(recorder: Recorder) -> None:
    crashing = spec("leaf", recorder, AlwaysFails, intensity=Intensity(1, 60.0))
    inner = ChildSpec("inner", supervisor([crashing]), backoff=SOON, intensity=Intensity(1, 60.0))
    outer = ChildSpec("outer", supervisor([spec("sibling", recorder), inner]), backoff=SOON, intensity=Intensity(1, 60.0))
    with running(recorder, outer) as tree:
        reason = tree.wait(PATIENCE)
    leaf = IntensityExceeded("leaf", Crashed("ValueError", "always"))
    assert reason == IntensityExceeded("outer", IntensityExceeded("inner", leaf))
    assert entries(recorder, "start").count("leaf") == 2 * 2 * 2
    assert [event.supervisor for event in recorder.of(SupervisorFailed)] == [*["inner", "inner", "outer"] * 2, "root"]
    assert tree.directory.ids() == frozenset()


class AlwaysFails(Probe):
    def on_start(self) -> None:
        super().on_start()
        raise ValueError("always")


def test_a_nested_supervisor_is_restarted_with_all_its_children(recorder: Recorder) -> None:
    inner = ChildSpec("inner", supervisor([spec("b", recorder), spec("c", recorder)], Strategy.ONE_FOR_ALL), backoff=SOON)
    with running(recorder, spec("a", recorder), inner) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.directory.ids() == {"root", "a", "inner", "b", "c"}
        nested = tree.statistics().children[1].nested
        assert nested is not None
        assert [child.state for child in nested.children] == ["running", "running"]
        assert tree.directory.kill("inner")
        recorder.wait_for_life("inner", 2)
        assert recorder.exits("inner") == [Crashed("KilledByRequest", "killed by request")]
        assert entries(recorder, "stop") == ["c", "b"]
        assert tree.directory.ids() == {"root", "a", "inner", "b", "c"}
    assert entries(recorder, "stop") == ["c", "b", "c", "b", "a"]


def test_a_stuck_leaf_fails_every_supervisor_above(recorder: Recorder) -> None:
    inner = ChildSpec("inner", supervisor([spec("leaf", recorder, handler_deadline=0.05), spec("b", recorder)], tick=0.02))
    entered, until = threading.Event(), threading.Event()
    with running(recorder, spec("a", recorder), inner) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("leaf", Block(entered, until))
        assert tree.wait(PATIENCE) == Stuck("leaf", "Block")
    assert entries(recorder, "stop") == ["b", "a"]
    until.set()


class SlowToStop(Probe):
    """Says that it is stopping, then waits to be let go."""

    go = threading.Event()

    def on_stop(self) -> None:
        super().on_stop()
        assert self.go.wait(PATIENCE)


def test_a_crash_during_a_siblings_restart_is_taken_into_it(recorder: Recorder) -> None:
    SlowToStop.go.clear()
    specs = [spec("a", recorder), spec("b", recorder), spec("c", recorder), spec("d", recorder, SlowToStop)]
    with running(recorder, *specs, strategy=Strategy.REST_FOR_ONE) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("c", BOOM)
        recorder.wait_for(lambda: "stop d" in recorder.entries)
        tree.tell("a", BOOM)  # c is down, d on its way; b lives, but stands behind a
        recorder.wait_for_exit("a")
        SlowToStop.go.set()
        recorder.wait_for_life("d", 2)
        assert entries(recorder, "start") == ["a", "b", "c", "d"] * 2
        assert entries(recorder, "stop") == ["d", "b"]
        crashed = {"crashed": 1}
        assert [child.restarts for child in tree.statistics().children] == [crashed, {}, crashed, {}]


class FailsWhileStopping(SlowToStop):
    def on_stop(self) -> None:
        super().on_stop()
        raise ValueError("in stop")


def test_a_sibling_that_crashes_while_it_is_taken_along_is_restarted_uncounted(recorder: Recorder) -> None:
    SlowToStop.go.set()
    specs = [spec("a", recorder), spec("b", recorder, FailsWhileStopping, intensity=Intensity(0, 10.0))]
    with running(recorder, *specs, strategy=Strategy.ONE_FOR_ALL) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", BOOM)
        recorder.wait_for_life("b", 2)
        assert recorder.exits("b") == [Crashed("ValueError", "in stop")]


def test_a_crash_during_shutdown_changes_neither_order_nor_outcome(recorder: Recorder) -> None:
    SlowToStop.go.clear()
    with running(recorder, spec("a", recorder), spec("b", recorder), spec("c", recorder, SlowToStop)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.request_stop()
        recorder.wait_for(lambda: "stop c" in recorder.entries)
        tree.tell("a", BOOM)
        recorder.wait_for_exit("a")
        SlowToStop.go.set()
        assert tree.wait(PATIENCE) == Shutdown()
    assert entries(recorder, "stop") == ["c", "b"]
    assert entries(recorder, "start") == ["a", "b", "c"]


class SlowToStart(Probe):
    go = threading.Event()

    def on_start(self) -> None:
        super().on_start()
        assert self.go.wait(PATIENCE)


def test_a_child_that_starts_slowly_keeps_nobody_from_being_noticed(recorder: Recorder) -> None:
    SlowToStart.go.clear()
    with running(recorder, spec("a", recorder), spec("b", recorder, SlowToStart), spec("c", recorder)) as tree:
        recorder.wait_for(lambda: "start b" in recorder.entries)
        tree.tell("a", BOOM)
        recorder.wait_for_life("a", 2)
        assert not tree.wait_started(0)
        assert "start c" not in recorder.entries  # the first start is in order
        SlowToStart.go.set()
        assert tree.wait_started(PATIENCE)


def test_a_tree_can_be_stopped_while_it_starts_and_while_a_child_waits_for_its_restart(recorder: Recorder) -> None:
    SlowToStart.go.clear()
    never = Backoff(initial=1000, maximum=1000)
    with running(recorder, spec("a", recorder, backoff=never), spec("b", recorder, SlowToStart), spec("c", recorder)) as tree:
        recorder.wait_for(lambda: "start b" in recorder.entries)
        tree.tell("a", BOOM)
        recorder.wait_for_exit("a")
        assert tree.statistics().children[0].state == "idle"
        tree.request_stop()
        SlowToStart.go.set()
        assert tree.wait(PATIENCE) == Shutdown()
    assert entries(recorder, "start") == ["a", "b"]
    assert entries(recorder, "stop") == ["b"]


def test_a_supervisor_that_is_broken_stops_its_children_before_it_ends(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Supervisor, *_: Any) -> None:
        raise ZeroDivisionError

    inner = ChildSpec("inner", supervisor([spec("a", recorder), spec("b", recorder)]), restart=Restart.TEMPORARY)
    with running(recorder, inner) as tree:
        assert tree.wait_started(PATIENCE)
        monkeypatch.setattr(Supervisor, "_restart", broken)
        tree.tell("a", BOOM)
        assert recorder.wait_for_exit("inner") == Crashed("ZeroDivisionError", "")
        assert entries(recorder, "stop") == ["b"]
        assert tree.directory.ids() == {"root"}


class VanishingSupervisor(Supervisor):
    """Its thread goes without a word when it is killed."""

    def kill_requested(self) -> None:
        self.end_with(Normal())

    def run_end(self) -> None:
        if self.statistics().closing is not None:
            super().run_end()


def test_a_supervisor_that_vanished_is_not_replaced_beside_its_orphans_who_end(recorder: Recorder) -> None:
    children = [spec("leaf", recorder)]
    inner = ChildSpec("inner", Start(lambda context: VanishingSupervisor(context, children), children=tuple(children)))
    with running(recorder, inner) as tree:
        assert tree.wait_started(PATIENCE)
        tree.directory.kill("inner")
        assert tree.wait(PATIENCE) == Stuck("inner", "vanished")
        recorder.wait_for(lambda: "stop leaf" in recorder.entries)
    assert entries(recorder, "start") == ["leaf"]


def test_a_supervisor_that_breaks_while_it_closes_ends_as_stuck_since_children_may_live_on(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Supervisor, *_: Any) -> bool:
        raise ZeroDivisionError

    with running(recorder, spec("a", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        monkeypatch.setattr(Supervisor, "_stop_down_to", broken)
        assert tree.stop(PATIENCE) == Stuck("root", "closing")
        recorder.wait_for(lambda: "stop a" in recorder.entries)


def test_a_listener_that_fails_brings_nobody_down(recorder: Recorder) -> None:
    def listen(event: object) -> None:
        recorder(event)  # type: ignore[arg-type]  # narrower than Event on purpose
        raise ValueError("listener")

    tree = start_tree([spec("a", recorder)], on_event=listen)
    tree.tell("a", BOOM)
    recorder.wait_for_life("a", 2)
    assert tree.stop(PATIENCE) == Shutdown()


def test_ids_are_unique_in_the_whole_tree(recorder: Recorder) -> None:
    nested = ChildSpec("inner", supervisor([spec("a", recorder)]))
    for children in ([spec("a", recorder), nested], [spec("root", recorder)], [spec("a", recorder)] * 2):
        with pytest.raises(DuplicateChild):
            start_tree(children)


def test_each_restart_is_one_log_line_with_its_reason_as_data(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="stem.supervision")
    with running(recorder, spec("a", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", Leave())
        recorder.wait_for_life("a", 2)
    (line,) = [record for record in caplog.records if "restarting" in record.message]
    assert (line.__dict__["child_id"], line.__dict__["reason"], line.__dict__["supervisor"]) == ("a", Normal.label, "root")


def test_a_wide_tree_without_children_or_with_many_starts_and_stops(recorder: Recorder) -> None:
    with running(recorder) as tree:
        assert tree.wait_started(PATIENCE)
    with running(recorder, *(spec(f"child-{number}", recorder) for number in range(40))) as tree:
        assert tree.wait_started(PATIENCE)
        for number in range(0, 40, 3):
            tree.tell(f"child-{number}", BOOM)
        for number in range(0, 40, 3):
            recorder.wait_for_life(f"child-{number}", 2)
        for number in range(40):
            assert tree.ask(f"child-{number}", Recall(), PATIENCE) == ()


def test_an_ask_that_is_not_answered_in_time_says_so(recorder: Recorder) -> None:
    entered, until = threading.Event(), threading.Event()
    with running(recorder, spec("a", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", Block(entered, until))
        with pytest.raises(TimeoutError, match="Note"):
            tree.ask("a", Note("x"), 0.01)
        until.set()


def test_a_thread_that_cannot_be_had_is_a_crash_that_is_retried(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    start = threading.Thread.start

    def refuse_twice(self: threading.Thread) -> None:
        if self.name == "scarce" and len(refused) < 2:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse_twice)
    with running(recorder, ChildSpec("scarce", actor(lambda context: plain(context, recorder)), backoff=SOON)) as tree:
        assert tree.wait_started(PATIENCE)
        assert recorder.exits("scarce") == [Crashed("RuntimeError", "can't start new thread")] * 2


def plain(context: Any, recorder: Recorder) -> StemActor:
    return Probe(context, recorder)
