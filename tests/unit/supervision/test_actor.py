"""StemActor: its tools, and every way to die."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from stem_actors.clock import SystemClock
from stem_actors.supervision import (
    ActorContext,
    Backoff,
    ChildGone,
    Crashed,
    Directory,
    DuplicateChild,
    MailboxFull,
    Normal,
    Shutdown,
    StartTimeout,
    Stuck,
    Vanished,
    actor,
)
from stem_actors.supervision.base import StemActor
from stem_actors.supervision.child import ChildSpec
from tests.unit.supervision.actors import PATIENCE, SOON, Block, Boom, Leave, Note, Probe, Recall, Recorder, running, spec


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="stem.supervision")


def test_an_actor_without_a_supervisor_works_as_a_pykka_actor(recorder: Recorder) -> None:
    ref = Probe.start(ActorContext.alone("probe"), recorder)
    ref.tell(Note("a"))
    assert ref.ask(Recall(), timeout=PATIENCE) == ("a",)
    assert ref.stop(timeout=PATIENCE)
    assert recorder.entries == ["start probe", "stop probe"]
    assert not ref.is_alive()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), MemoryError(), GeneratorExit()])
@pytest.mark.parametrize("by", ["tell", "ask"])
def test_any_exception_in_a_handler_ends_this_actor_and_no_other(recorder: Recorder, error: BaseException, by: str) -> None:
    with running(recorder, spec("a", recorder), spec("b", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.ask("b", Note("kept"), PATIENCE)
        if by == "tell":
            assert tree.tell("a", Boom(error))
        else:
            with pytest.raises(type(error)):
                tree.ask("a", Boom(error), PATIENCE)
        recorder.wait_for_life("a", 2)
        assert recorder.exits("a") == [Crashed(type(error).__name__, str(error))]
        assert recorder.entries.count("failure a") == 1
        assert recorder.entries.count("stop a") == 0
        assert tree.ask("b", Recall(), PATIENCE) == ("kept",)
        assert tree.ask("a", Recall(), PATIENCE) == ()
    assert recorder.exits("b") == [Shutdown()]


class FailsToStart(Probe):
    def on_start(self) -> None:
        super().on_start()
        if self.recorder.entries.count(f"start {self.name}") < 3:
            raise ValueError("not yet")


def test_an_error_in_the_start_is_a_crash_that_is_retried(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, FailsToStart)) as tree:
        assert tree.wait_started(PATIENCE)
        assert recorder.exits("a") == [Crashed("ValueError", "not yet")] * 2
        assert recorder.entries.count("failure a") == 2


def test_an_error_in_the_constructor_is_a_crash_too(recorder: Recorder) -> None:
    tries: list[int] = []

    def build(context: ActorContext) -> StemActor:
        tries.append(1)
        if len(tries) < 3:
            raise SystemExit("no")
        return Probe(context, recorder)

    with running(recorder, ChildSpec("a", actor(build), backoff=SOON)) as tree:
        assert tree.wait_started(PATIENCE)
        assert recorder.exits("a") == [Crashed("SystemExit", "no")] * 2


def test_a_child_in_backoff_holds_up_no_sibling_that_stands_alone(recorder: Recorder) -> None:
    hopeless = spec("a", recorder, FailsToStart, backoff=Backoff(1000.0, 1000.0))
    with running(recorder, hopeless, spec("b", recorder)) as tree:
        recorder.wait_for_life("b", 1)
        assert not tree.wait_started(0)


class FailsToStop(Probe):
    def on_stop(self) -> None:
        raise ValueError("in stop")


def test_an_error_in_the_stop_is_reported_and_holds_up_nothing(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, FailsToStop), spec("b", recorder, FailsToStop)) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.stop(PATIENCE) == Shutdown()
    assert recorder.exits("a") == recorder.exits("b") == [Crashed("ValueError", "in stop")]


class FailsInFailure(Probe):
    def on_failure(self, *error: object) -> None:
        raise MemoryError


def test_an_error_while_cleaning_up_hides_neither_the_crash_nor_the_exit(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, FailsInFailure)) as tree:
        tree.tell("a", Boom(ValueError("first")))
        assert recorder.wait_for_exit("a") == Crashed("ValueError", "first")
        recorder.wait_for_life("a", 2)


class Vanishing(Probe):
    """Its thread can be made to go without a word."""

    gone = False

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Leave):
            self.gone = True
            raise SystemExit
        return super().on_receive(message)

    def run_end(self) -> None:
        if not self.gone:
            super().run_end()


def test_a_thread_that_vanished_is_noticed_and_what_waited_for_it_refused(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, Vanishing)) as tree:
        assert tree.wait_started(PATIENCE)
        reply = None
        entered, until = threading.Event(), threading.Event()
        tree.tell("a", Block(entered, until))
        tree.tell("a", Leave())
        reply = tree.directory.ask("a", Recall())
        until.set()
        assert recorder.wait_for_exit("a") == Vanished()
        with pytest.raises(Exception, match="ended before"):
            reply.get(timeout=PATIENCE)
        recorder.wait_for_life("a", 2)
        assert tree.ask("a", Recall(), PATIENCE) == ()


def test_a_handler_that_never_returns_fails_the_tree_within_its_deadlines(recorder: Recorder) -> None:
    entered, until = threading.Event(), threading.Event()
    with running(recorder, spec("a", recorder), spec("b", recorder, handler_deadline=0.1), spec("c", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("b", Block(entered, until))
        assert tree.wait(PATIENCE) == Stuck("b", "Block")
        assert recorder.exits("b") == [Stuck("b", "Block")]
        assert [entry for entry in recorder.entries if entry.startswith("stop")] == ["stop c", "stop a"]
        assert not tree.tell("b", Note("into the void"))
        until.set()
        recorder.wait_for(lambda: "stop b" in recorder.entries)  # the thread ends as soon as it can


def test_an_idle_actor_is_not_stuck_however_long_it_idles(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, handler_deadline=0.05), tick=0.01) as tree:
        assert tree.wait_started(PATIENCE)
        for _ in range(5):
            assert tree.wait(0.1) is None
            assert tree.ask("a", Note("x"), PATIENCE) is None


class HangsInStart(Probe):
    until = threading.Event()

    def on_start(self) -> None:
        super().on_start()
        if self.recorder.entries.count(f"start {self.name}") == 1:
            self.until.wait()


def test_a_start_that_hangs_is_given_up_and_its_late_actor_never_gets_a_message(recorder: Recorder) -> None:
    HangsInStart.until.clear()
    with running(recorder, spec("a", recorder, HangsInStart, start_deadline=0.05), spec("b", recorder)) as tree:
        recorder.wait_for(lambda: "start a" in recorder.entries)
        (late,) = [thread for thread in threading.enumerate() if thread.name == "a"]
        assert recorder.wait_for_exit("a") == StartTimeout(0.05)
        recorder.wait_for_life("a", 2)
        tree.ask("a", Note("new"), PATIENCE)
        HangsInStart.until.set()
        late.join(PATIENCE)
        assert recorder.entries.count("stop a") == 1
        assert tree.wait_started(PATIENCE)
        tree.tell("b", Leave())  # the supervisor hears of the late one's end before it hears of this
        recorder.wait_for_life("b", 2)
        assert tree.ask("a", Recall(), PATIENCE) == ("new",)
        assert len(recorder.exits("a")) == 1


class HangsInStop(Probe):
    until = threading.Event()

    def on_stop(self) -> None:
        self.until.wait()


def test_a_stop_that_hangs_holds_up_the_others_only_until_its_deadline(recorder: Recorder) -> None:
    HangsInStop.until.clear()
    with running(recorder, spec("a", recorder), spec("b", recorder, HangsInStop, stop_deadline=0.1)) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.stop(0.01) is None
        assert tree.stop(PATIENCE) == Stuck("b", "on_stop")
    assert recorder.exits("a") == [Shutdown()]
    HangsInStop.until.set()


def test_leaving_by_itself_is_normal(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder)) as tree:
        tree.tell("a", Leave())
        assert recorder.wait_for_exit("a") == Normal()
        recorder.wait_for_life("a", 2)


def test_a_killed_actor_crashes_as_if_its_handler_had_raised(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        assert tree.directory.kill("a")
        assert not tree.directory.kill("nobody")
        assert recorder.wait_for_exit("a") == Crashed("KilledByRequest", "killed by request")
        recorder.wait_for_life("a", 2)


def test_names_outlive_actors_and_nobody_is_told_between_two_lives(recorder: Recorder) -> None:
    directory = Directory()
    probe = ActorContext.alone("probe", directory=directory)
    ref = Probe.start(probe, recorder)
    assert directory.tell("probe", Note("a"))
    with pytest.raises(DuplicateChild):
        ActorContext.alone("probe", directory=directory)
    ref.stop(timeout=PATIENCE)
    assert not directory.tell("probe", Note("b"))
    with pytest.raises(ChildGone):
        directory.ask("probe", Recall())
    again = Probe.start(ActorContext.alone("probe", directory=directory), recorder)
    assert directory.ask("probe", Recall()).get(timeout=PATIENCE) == ()
    again.stop(timeout=PATIENCE)


def test_a_flood_is_refused_at_the_bound_and_the_actor_stops_ahead_of_it(recorder: Recorder) -> None:
    entered, until = threading.Event(), threading.Event()
    with running(recorder, spec("a", recorder)) as tree:
        assert tree.wait_started(PATIENCE)
        tree.tell("a", Block(entered, until))
        assert entered.wait(PATIENCE)
        for number in range(Probe.mailbox_bound):
            tree.tell("a", Note(str(number)))
        with pytest.raises(MailboxFull):
            tree.tell("a", Note("too many"))
        assert tree.tell("a", Recall())  # control gets in
        statistics = tree.statistics().children[0]
        assert (statistics.mailbox_depth, statistics.handler) == (Probe.mailbox_bound + 1, "Block")
        refused = tree.directory.ask("a", Recall())
        tree.request_stop()
        assert tree.wait(0.05) is None
        until.set()
        assert tree.wait(PATIENCE) == Shutdown()
        with pytest.raises(Exception, match="ended before"):
            refused.get(timeout=PATIENCE)


class Relay(Probe):
    """Floods itself and a sibling."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Leave):
            sent = 0
            try:
                while True:
                    self.tell(self.name, Note("to myself"))
                    sent += 1
            except MailboxFull:
                return sent
        return super().on_receive(message)


def test_an_actor_that_floods_itself_is_told_so_and_does_not_deadlock(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, Relay)) as tree:
        assert tree.ask("a", Leave(), PATIENCE) == Relay.mailbox_bound
        assert len(tree.ask("a", Recall(), PATIENCE)) == Relay.mailbox_bound


class Batcher(Probe):
    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Note):
            batch = [message, *self.take(Note, 9)]
            self.notes.append(str(len(batch)))
            return None
        return super().on_receive(message)


def test_what_piled_up_is_taken_as_a_batch(recorder: Recorder) -> None:
    entered, until = threading.Event(), threading.Event()
    with running(recorder, spec("a", recorder, Batcher)) as tree:
        tree.tell("a", Block(entered, until))
        assert entered.wait(PATIENCE)
        for _ in range(25):
            tree.tell("a", Note("x"))
        until.set()
        assert tree.ask("a", Recall(), PATIENCE) == ("10", "10", "5")


class Reader(Probe):
    """Waits for something else than its mailbox."""

    wake = threading.Event()

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Leave):
            self.recorder.note("reading")
            with self.interruptible(self.wake.set):
                return self.wake.wait(PATIENCE)
        return super().on_receive(message)


def test_a_handler_that_reads_elsewhere_is_interrupted_by_a_message(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, Reader)) as tree:
        assert tree.wait_started(PATIENCE)
        reply = tree.directory.ask("a", Leave())
        recorder.wait_for(lambda: "reading" in recorder.entries)
        tree.tell("a", Note("wake up"))
        assert reply.get(timeout=PATIENCE) is True
        assert tree.ask("a", Recall(), PATIENCE) == ("wake up",)


class Alarm(Probe):
    def on_start(self) -> None:
        super().on_start()
        self.after(0.01, Note("rang"))
        self.after(0.01, Note("silenced")).cancel()
        assert self.seconds_to_timer() is not None
        self.after(0.02, Leave())

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Leave):
            self.recorder.note(" ".join(self.notes))
            return None
        return super().on_receive(message)


def test_timers_deliver_unless_cancelled(recorder: Recorder) -> None:
    with running(recorder, spec("a", recorder, Alarm)):
        recorder.wait_for(lambda: "rang" in recorder.entries)
        assert SystemClock().monotonic() > 0
