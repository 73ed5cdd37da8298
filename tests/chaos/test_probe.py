"""What workers and executors write down about themselves: real nodes on each broker, and the probe alone on a broker's edge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stem_actors import Settings, Stem
from stem_actors.adapters import open_configured
from stem_actors.clock import SystemClock
from stem_actors.errors import BrokerUnavailable
from stem_actors.model.delivery import Handout, Lease
from stem_actors.model.outcome import Ack, DeadLetter, Defer, Release, Retry, Verdict
from stem_actors.model.record import Settlement
from stem_actors.ports import Done, Intake, Message, Stale
from stem_chaos.history import Operation, Phase, Recorder, Verb, read_history, write_facts
from stem_chaos.points import Points
from stem_chaos.probe import ProbedBroker, ProbedIntake
from tests.fixtures.probed import BROKERS, FACTS, Probed, probed
from tests.fixtures.redis_server import own_server
from tests.fixtures.waiting import SOON, until


@pytest.fixture(params=BROKERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Probed]:
    with probed(tmp_path, request.param) as made:
        yield made


def settled(place: Probed, count: int) -> list[Operation]:
    """The settlements that were answered, once there are so many: a record is read before its settlement is written down."""

    def answered() -> list[Operation] | None:
        found = [each for each in place.history().of(Verb.SETTLE) if each.phase is not Phase.INVOKE]
        return found if len(found) >= count else None

    return until(answered, what=f"{count} settlements") or []


# ---------------------------------------------------------------- whole nodes


def test_each_task_is_delivered_started_ended_and_settled_under_one_lease(place: Probed) -> None:
    node = place.start("--workers", "2")
    handles = [place.enqueue("jobs.add", number, 1) for number in range(60)]
    assert [handle.get(SOON) for handle in handles] == [number + 1 for number in range(60)]
    settled(place, 60)
    node.send(15)
    assert node.wait(30) == 0
    history = place.history()
    of_task: dict[str, list[Operation]] = defaultdict(list)
    for each in history.operations:
        if each.task_id is not None:
            of_task[each.task_id].append(each)
    assert set(of_task) == {handle.id for handle in handles}
    for operations in of_task.values():
        assert [(each.verb, each.phase) for each in operations] == [
            (Verb.DELIVER, Phase.OK),
            (Verb.START, Phase.OK),
            (Verb.END, Phase.OK),
            (Verb.SETTLE, Phase.INVOKE),
            (Verb.SETTLE, Phase.OK),
        ]
        deliver, start, end, asked, answered = operations
        assert {each.attempt for each in operations} == {0}
        assert deliver.lease == asked.lease == answered.lease
        assert deliver.lease is not None
        assert deliver.incarnation == asked.incarnation == answered.incarnation == deliver.process
        assert deliver.delivery_count == asked.delivery_count == answered.delivery_count == 1
        assert deliver.detail == {
            "queue": "default",
            "deaths": [],
            "lapses": 0,
            "visibility": 30.0,
            "fetch": deliver.detail["fetch"],
        }
        assert asked.call == answered.call
        assert asked.detail == answered.detail == {"queue": "default", "verdict": "ack", "state": "succeeded"}
        assert start.detail["task"] == "jobs.add"
        assert deliver.process.startswith(f"{start.detail['worker']}#")
        assert start.process == end.process == f"executor-{start.pid}"
        assert start.pid not in (deliver.pid, node.process.pid)
        assert end.detail == {"outcome": "returned"}
    workers = {each.process for each in history.of(Verb.DELIVER)}
    assert 1 <= len(workers) <= 2
    assert len({deliver.lease for deliver in history.of(Verb.DELIVER)}) == 60


def test_what_goes_wrong_is_told_with_its_verdict(place: Probed) -> None:
    place.start()
    failed, again, fine = (
        place.enqueue("jobs.fail", max_retries=0),
        place.enqueue("jobs.fail_once"),
        place.enqueue("jobs.add", 1, 1),
    )
    unknown = place.enqueue("no.such.task")
    assert (again.get(SOON), fine.get(SOON)) == (1, 2)
    until(lambda: failed.status().state.is_final)
    settled(place, 5)
    assert [each.detail for each in place.of(failed, Verb.END)] == [{"outcome": "raised", "error": "ValueError"}]
    (settle,) = [each for each in place.of(failed, Verb.SETTLE) if each.phase is Phase.OK]
    assert settle.detail["verdict"] == "dead-letter"
    assert settle.detail["state"] == "failed"
    assert settle.detail["reason"] == "max-retries-exhausted"
    retried, done = [each for each in place.of(again, Verb.SETTLE) if each.phase is Phase.OK]
    assert (retried.detail["verdict"], retried.detail["state"], retried.detail["delay"]) == ("retry", "retried", 0)
    assert (done.detail["verdict"], done.attempt, done.delivery_count) == ("ack", 1, 2)
    assert [(each.verb, each.attempt) for each in place.of(again, Verb.START, Verb.END)] == [
        (Verb.START, 0),
        (Verb.END, 0),
        (Verb.START, 1),
        (Verb.END, 1),
    ]
    assert [each.detail.get("error") for each in place.of(again, Verb.END)] == ["RetryRequested", None]
    deferred = until(lambda: [each for each in place.of(unknown, Verb.SETTLE) if each.phase is Phase.OK])[0]
    assert deferred.detail["verdict"] == "defer"
    assert deferred.detail["delay"] > 0


def test_a_long_run_is_renewed_and_a_death_is_charged(place: Probed) -> None:
    place.start("--visibility-timeout", "1s")
    long, poison = place.enqueue("jobs.wait_for", "go"), place.enqueue("jobs.die")
    renewed = until(lambda: [each for each in place.of(long, Verb.RENEW) if each.phase is Phase.OK])[0]
    (deliver,) = place.of(long, Verb.DELIVER)
    assert (renewed.lease, renewed.attempt, renewed.incarnation) == (deliver.lease, 0, deliver.incarnation)
    place.open_gate()
    assert long.get(SOON) == "go"
    until(lambda: poison.status().state.is_final)
    settled(place, 6)
    deaths = [each.detail["deaths"] for each in place.of(poison, Verb.SETTLE) if each.phase is Phase.OK]
    assert deaths == [["signal 9 (SIGKILL)"] * count for count in range(1, 6)]
    assert [each.detail["deaths"] for each in place.of(poison, Verb.DELIVER)] == [["signal 9 (SIGKILL)"] * n for n in range(5)]
    assert [each.delivery_count for each in place.of(poison, Verb.DELIVER)] == [1, 2, 3, 4, 5]
    assert Counter(each.verb for each in place.of(poison, Verb.START, Verb.END)) == {Verb.START: 5}


def test_a_sweep_that_found_something_says_what(place: Probed) -> None:
    brief = Stem(settings=Settings(broker_url=place.url, visibility_timeout=1.0))
    handle = place.enqueue("jobs.add", 1, 1)
    assert len(brief.stores.broker.open_intake(["default"], "gone#1").receive(1, 5)) == 1
    brief.close()
    place.start("--visibility-timeout", "1s")
    assert handle.get(SOON) == 2
    (reclaim,) = until(lambda: list(place.history().of(Verb.RECLAIM)))
    assert reclaim.detail == {"promoted": 0, "reclaimed": 1, "poisoned": 0}
    (deliver,) = place.of(handle, Verb.DELIVER)
    assert reclaim.process == deliver.process
    assert (deliver.delivery_count, deliver.detail["lapses"], deliver.attempt) == (2, 1, 0)


def test_a_node_without_chaos_has_no_probe(tmp_path: Path) -> None:
    with probed(tmp_path, "sqlite") as place:
        place.environ["STEM_ENABLE_CHAOS"] = "false"
        place.start(app="jobs")
        assert place.enqueue("jobs.add", 1, 1).get(SOON) == 2
        assert place.history().operations == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STEM_CHAOS_PROBE", "stem_chaos.nowhere:instrument", "STEM_CHAOS_PROBE is 'stem_chaos.nowhere:instrument'"),
        ("STEM_CHAOS_PROBE", "stem_chaos.probe:nothing", "STEM_CHAOS_PROBE is 'stem_chaos.probe:nothing'"),
        ("STEM_CHAOS_DIRECTORY", "", "STEM_CHAOS_DIRECTORY names no directory"),
    ],
)
def test_a_probe_that_cannot_be_used_ends_the_node_with_the_reason(tmp_path: Path, variable: str, value: str, said: str) -> None:
    with probed(tmp_path, "sqlite") as place:
        place.environ[variable] = value
        node = place.start(is_ready=False)
        assert node.wait(30) == 64
        assert said in node.log


# ---------------------------------------------------------------- the probe alone


class Bench:
    """A probed broker in this process, as the worker `w#1` has it."""

    def __init__(self, directory: Path, url: str) -> None:
        write_facts(directory, FACTS)
        self.directory = directory
        settings = Settings(broker_url=url)
        self.app = Stem(settings=settings)
        self.task = self.app.task(name="t")(str)
        self.stores = open_configured(settings, SystemClock())
        self.recorder = Recorder(directory, "w#1")
        self.broker = ProbedBroker(self.stores.broker, self.recorder, Points(directory, lambda name: None))

    def received(self, count: int) -> list[Lease]:
        """Enqueue and receive so many."""
        self.app.enqueue_many([self.task.call(number) for number in range(count)])
        return [each.lease for each in self.broker.open_intake(["default"], "w#1").receive(count, 5)]

    def told(self, *verbs: Verb) -> list[Operation]:
        return list(read_history(self.directory).of(*verbs))

    def close(self) -> None:
        self.app.close()
        self.stores.close()
        self.recorder.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, f"sqlite:///{tmp_path}/stem.db")
    yield made
    made.close()


def test_what_is_settled_twice_fails_the_second_time_and_is_known_by_its_task(bench: Bench) -> None:
    (lease,) = bench.received(1)
    assert bench.broker.settle([Settlement(lease, Ack())]) == [Done()]
    assert bench.broker.settle([Settlement(lease, Ack())]) == [Stale()]
    assert bench.broker.extend([lease]) == [Stale()]
    told = bench.told(Verb.SETTLE, Verb.RENEW)
    assert [(each.verb, each.phase, each.detail.get("answer")) for each in told] == [
        (Verb.SETTLE, Phase.INVOKE, None),
        (Verb.SETTLE, Phase.OK, None),
        (Verb.SETTLE, Phase.INVOKE, None),
        (Verb.SETTLE, Phase.FAIL, "stale"),
        (Verb.RENEW, Phase.INVOKE, None),
        (Verb.RENEW, Phase.FAIL, "stale"),
    ]
    (deliver,) = bench.told(Verb.DELIVER)
    assert {each.task_id for each in told} == {deliver.task_id}


def test_every_verdict_has_its_word(bench: Bench) -> None:
    verdicts: list[Verdict] = [Ack(), Release(), Defer(3.0), Retry(2.0), DeadLetter("poison", {"deaths": ["why"]})]
    leases = bench.received(5)
    bench.broker.settle([Settlement(lease, verdict) for lease, verdict in zip(leases, verdicts, strict=True)])
    assert [each.detail for each in bench.told(Verb.SETTLE) if each.phase is Phase.OK] == [
        {"queue": "default", "verdict": "ack"},
        {"queue": "default", "verdict": "release"},
        {"queue": "default", "verdict": "defer", "delay": 3.0},
        {"queue": "default", "verdict": "retry", "delay": 2.0},
        {"queue": "default", "verdict": "dead-letter", "reason": "poison"},
    ]


def test_hand_outs_whose_answer_was_lost_are_told_when_they_are_found_and_once(bench: Bench) -> None:
    known = bench.received(1)
    bench.app.enqueue_many([bench.task.call("lost")])
    (lost,) = bench.stores.broker.open_intake(["default"], "w#1").receive(10, 5)
    for _ in range(2):
        assert len(bench.broker.held("w#1")) == 2
    assert [(each.lease, each.detail.get("recovered")) for each in bench.told(Verb.DELIVER)] == [
        (str(known[0].token), None),
        (str(lost.lease.token), True),
    ]
    bench.broker.settle([Settlement(lost.lease, Release())])
    assert {each.task_id for each in bench.told(Verb.SETTLE)} == {lost.id}


def test_what_is_found_before_its_fetch_has_returned_is_told_once(bench: Bench) -> None:
    """Two threads of a worker, the second between the broker's answer and the first's next line."""
    broker = bench.stores.broker

    class Overtaken(ProbedBroker):
        def open_intake(self, queues: Sequence[str], holder: str) -> Intake:
            plain = broker.open_intake(queues, holder)
            receive = plain.receive

            def overtaken(limit: int, wait: float) -> list[Handout]:
                handouts = receive(limit, wait)
                self.held(holder)
                return handouts

            plain.receive = overtaken  # type: ignore[method-assign]  # there is no other way in between
            return ProbedIntake(plain, self._leases, self._points)

    bench.broker = Overtaken(broker, bench.recorder, Points(bench.directory, lambda name: None))
    (lease,) = bench.received(1)
    assert [(each.lease, each.detail.get("recovered")) for each in bench.told(Verb.DELIVER)] == [(str(lease.token), True)]


def test_a_lease_that_was_never_seen_is_told_without_its_task(bench: Bench) -> None:
    (lease,) = bench.received(1)
    strange = lease._replace(token=1_000_000)
    assert bench.broker.extend([strange]) == [Stale()]
    (asked, _) = bench.told(Verb.RENEW)
    assert (asked.lease, asked.incarnation, asked.task_id, asked.attempt) == ("1000000", "w#1", None, None)


def test_of_ended_leases_the_last_ones_stay_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_chaos.probe._REMEMBERED", 2)
    leases = bench.received(3)
    for lease in leases:
        bench.broker.settle([Settlement(lease, Ack())])
    bench.broker.extend(leases)
    known = [each.task_id is not None for each in bench.told(Verb.RENEW) if each.phase is Phase.FAIL]
    assert known == [False, True, True]


def test_what_cannot_be_read_is_told_by_its_lease(tmp_path: Path) -> None:
    with own_server() as server:
        bench = Bench(tmp_path, server.url)
        bench.received(1)
        streams = [key for key in server.command("KEYS", "*") if server.command("TYPE", key) == b"stream"]
        (stream,) = [key for key in streams if server.command("XLEN", key)]
        server.command("XADD", stream, "*", "garbage", "1")
        (garbage,) = bench.broker.open_intake(["default"], "w#1").receive(10, 5)
        bench.close()
    assert garbage.state is None
    told = bench.told(Verb.DELIVER)[-1]
    assert (told.lease, told.task_id, told.attempt) == (str(garbage.lease.token), garbage.id, None)


def test_nobody_knows_what_became_of_what_was_asked_of_a_broker_that_died(tmp_path: Path) -> None:
    with own_server() as server:
        bench = Bench(tmp_path, server.url)
        leases = bench.received(2)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            bench.broker.settle([Settlement(lease, Ack()) for lease in leases])
        with pytest.raises(BrokerUnavailable):
            bench.broker.extend(leases)
        bench.close()
    told = bench.told(Verb.SETTLE, Verb.RENEW)
    assert [(each.verb, each.phase) for each in told] == [
        *[(Verb.SETTLE, Phase.INVOKE)] * 2,
        *[(Verb.SETTLE, Phase.INFO)] * 2,
        *[(Verb.RENEW, Phase.INVOKE)] * 2,
        *[(Verb.RENEW, Phase.INFO)] * 2,
    ]
    assert all(each.detail["error"].startswith("BrokerUnavailable: ") for each in told if each.phase is Phase.INFO)
    assert [each.call for each in told[:2]] == [each.call for each in told[2:4]]


def test_operators_reach_the_broker_through_the_probe(bench: Bench) -> None:
    dead, waiting = bench.received(2)
    broker = bench.broker
    assert broker.settle([Settlement(dead, DeadLetter("poison")), Settlement(waiting, Release())]) == [Done(), Done()]
    (entry,) = broker.dead_letters("default").entries
    assert broker.dead_letter("default", entry.id) == entry
    assert [each.id for each in broker.replay_dead_letters("default", dry_run=True)] == [entry.id]
    assert broker.purge_dead_letters("default") == 1
    assert [(each.queue, each.pending) for each in broker.depths()] == [("default", 1)]
    (again,) = broker.open_intake(["default"], "w#1").receive(10, 5)
    assert broker.mark_started(again.lease) == Done()
    assert broker.settle([Settlement(again.lease, Release())]) == [Done()]
    assert broker.purge("default") == 1
    assert broker.now() == pytest.approx(bench.stores.broker.now(), abs=5)
    broker.publish("sender", 1, [Message("id", "default", 0, b"body")])
    intake = broker.open_intake(["default"], "w#1")
    assert [each.id for each in intake.receive(10, 5)] == ["id"]
    intake.close()
    broker.close()
