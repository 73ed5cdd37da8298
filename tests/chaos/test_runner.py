"""Runs of a few seconds: what the client writes down, what becomes of a named broker, what is refused, who is left behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from stem_actors import Settings, Stem
from stem_actors.errors import BrokerUnavailable, ConfigError, OperatorError, UsageError
from stem_chaos.checker.finding import Validity
from stem_chaos.checker.leaving import check_leaving
from stem_chaos.client import ChaosClient
from stem_chaos.generator import Planned
from stem_chaos.history import History, Operation, Phase, Recorder, RunFacts, Verb, read_history, write_facts
from stem_chaos.measure import count_broker
from stem_chaos.observer import Observer
from stem_chaos.place import find_place
from stem_chaos.runner import Orders, Progress, Run
from stem_chaos.suites import Shape, Suite, load_suite
from stem_chaos.verdict import has_held, judge
from stem_chaos.workload import all as built_in
from stem_chaos.workload.own import Own, OwnTask
from stem_chaos.workload.short import double
from stem_chaos.workload.workload import Enqueue
from tests.fixtures import postgres_server
from tests.fixtures.redis_server import flush_namespace, own_server, shared_url
from tests.fixtures.waiting import until

BRIEF = Suite(
    name="brief",
    summary="a few seconds",
    calm=1.0,
    faults=2.0,
    recovery=1.0,
    patience=30.0,
    schedule={"nodes": "kill-executor/500ms"},
    workloads={"short": {"rate": 20}, "bank": {"rate": 5}},
    shape=Shape(nodes=1, workers=1, concurrency=2, visibility_timeout=3.0),
)


def untold(progress: Progress) -> None:
    """Nobody watches."""


def orders(directory: Path, broker: str = "sqlite", suite: Suite = BRIEF, **more: Any) -> Orders:
    return Orders(suite, find_place(broker), 1, directory / "run", **more)


def processes_of(directory: Path) -> list[int]:
    """Whoever takes part in a run."""
    mark, found = f"STEM_CHAOS_DIRECTORY={directory}".encode(), []
    for process in psutil.process_iter():
        try:
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(process.pid)
        except OSError:
            continue
    return found


# ---------------------------------------------------------------- a whole run


def test_a_run_holds_and_leaves_nobody_behind(tmp_path: Path) -> None:
    stages: list[str] = []
    Run(orders(tmp_path), lambda progress: stages.append(progress.stage)).carry_out()
    history = read_history(tmp_path / "run")
    findings = judge(history)
    assert has_held(findings), [finding for finding in findings if finding.violations]
    assert list(dict.fromkeys(stages))[:4] == ["starting the nodes", "calm", "faults", "recovery"]
    assert list(history.facts.exits) == [0]
    assert history.facts.quiet_from is not None
    assert {each.detail["when"] for each in history.of(Verb.MEASURE)} == {"baseline", "end"}
    assert sum(each.detail.get("fault") == "kill-executor" for each in history.of(Verb.FAULT, phase=Phase.OK)) >= 2
    assert processes_of(tmp_path / "run") == []


def test_the_same_seed_injects_the_same_faults_at_the_same_times(tmp_path: Path) -> None:
    suite = load_suite("smoke")

    def planned(seed: int) -> list[Any]:
        return list(Run(replace(orders(tmp_path, suite=suite), seed=seed), untold).planned)

    assert planned(5) == planned(5)
    assert planned(5) != planned(6)


def test_a_run_that_is_interrupted_leaves_nobody_behind_and_a_history_to_read(tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "faults":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(orders(tmp_path), interrupt).carry_out()
    assert processes_of(tmp_path / "run") == []
    history = read_history(tmp_path / "run")
    assert history.facts.ended_at is None
    assert any(history.of(Verb.START))
    assert has_held(judge(history))  # what nobody looked at is unknown, not broken


# ---------------------------------------------------------------- brokers that are named


def test_a_named_sqlite_file_is_not_touched_and_the_one_beside_it_is_removed(tmp_path: Path) -> None:
    named = tmp_path / "theirs.db"
    with closing(sqlite3.connect(named)) as theirs, theirs:
        theirs.execute("CREATE TABLE precious (value)")
    before = named.read_bytes()
    Run(orders(tmp_path, f"sqlite:///{named}"), untold).carry_out()
    assert named.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"theirs.db", "run"}
    assert has_held(judge(read_history(tmp_path / "run")))


def test_a_named_redis_keeps_what_it_has_and_nothing_of_the_run(tmp_path: Path) -> None:
    with own_server() as server:
        server.command("SET", "precious", "1")
        server.command("SET", "stem-chaos", "not a namespace")
        Run(orders(tmp_path, server.tcp_url), untold).carry_out()
        assert sorted(server.command("KEYS", "*")) == [b"precious", b"stem-chaos"]
    assert has_held(judge(read_history(tmp_path / "run")))


def test_a_named_postgres_keeps_what_it_has_and_nothing_of_the_run(tmp_path: Path) -> None:
    server, schema = postgres_server.shared_url(), postgres_server.new_schema()
    url = f"{server}&schema={schema}"
    with Stem(settings=Settings(broker_url=url, namespace="theirs")) as theirs:
        theirs.enqueue_by_name("precious", [])
        Run(orders(tmp_path, url), untold).carry_out()
        (depth,) = theirs.stores.broker.depths()
        assert (depth.queue, depth.pending) == ("default", 1)
        assert postgres_server.execute(server, f"SELECT name FROM {schema}.namespace") == [("theirs",)]
    assert has_held(judge(read_history(tmp_path / "run")))


def test_a_named_broker_that_does_not_answer_ends_the_run_before_a_node_is_started(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable):
        Run(orders(tmp_path, "redis://127.0.0.1:1/0"), untold).carry_out()
    assert not (tmp_path / "run/nodes").exists()


# ---------------------------------------------------------------- what is refused


def test_faults_that_would_hit_others_are_refused_on_a_named_broker(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"kill-broker would hit others as well .* run with --broker redis"):
        Run(orders(tmp_path, "redis://127.0.0.1:1/0", schedule="kill-broker/1s"), untold)


def test_a_suite_leaves_out_what_only_a_private_broker_can_suffer_on_a_named_one(tmp_path: Path) -> None:
    run = Run(orders(tmp_path, "redis://127.0.0.1:1/0", suite=load_suite("smoke")), untold)
    hit = {planned.fault.partition("-")[2].partition("/")[0] for planned in run.planned}
    assert "link" in hit
    assert hit <= {"executor", "actor", "worker", "node", "point", "host", "link"}


def test_over_tls_links_are_left_alone(tmp_path: Path) -> None:
    run = Run(orders(tmp_path, "rediss://127.0.0.1:1/0", suite=load_suite("smoke")), untold)
    assert "link" not in {planned.fault.partition("-")[2] for planned in run.planned}


def test_a_fault_that_is_not_possible_ends_a_run_that_was_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kill-broker needs a private server"):
        Run(orders(tmp_path, schedule="kill-broker/100ms"), untold).carry_out()
    assert processes_of(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("memory://", "a memory broker lives inside one program"),
        ("http://somewhere", "--broker is 'http://somewhere'"),
        ("sqlite:////no/such/place/stem.db", "there is no directory /no/such/place"),
    ],
)
def test_a_broker_that_no_run_can_use_is_refused(broker: str, said: str) -> None:
    with pytest.raises((UsageError, ConfigError)) as refused:
        find_place(broker)
    assert said in str(refused.value)


def test_a_suite_for_another_broker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="redis-failover is for redis"):
        Run(orders(tmp_path, suite=load_suite("redis-failover")), untold)
    with pytest.raises(UsageError, match="needs servers of its own"):
        Run(orders(tmp_path, "redis://127.0.0.1:1/0", suite=load_suite("redis-failover")), untold)


def test_a_task_that_the_application_does_not_have_is_refused(tmp_path: Path) -> None:
    own = Own("tests.fixtures.tasks_app:app", [OwnTask("no.such.task")])
    with pytest.raises(UsageError, match=r"tests\.fixtures\.tasks_app:app has no task 'no\.such\.task'; it has "):
        Run(orders(tmp_path, own=own), untold)


def test_arguments_that_cannot_travel_end_the_run(tmp_path: Path) -> None:
    own = Own(built_in_app(), [OwnTask(double.name, [10**40])], rate=20.0)
    with pytest.raises(UsageError, match="a task cannot be enqueued"):
        Run(orders(tmp_path, own=own), untold).carry_out()
    assert processes_of(tmp_path / "run") == []


def built_in_app() -> str:
    return "stem_chaos.workload.all:app"


def test_nodes_import_the_workloads_of_their_run_and_no_others(tmp_path: Path) -> None:
    """A version that is replaced may not have what the newest of them needs."""
    layout = Run(orders(tmp_path), untold)._layout(None)
    assert layout.app == "stem_chaos.workload.tasks:app"
    imported = layout.settings["STEM_TASKS"].split(",")
    assert sorted(imported) == sorted({kind.__module__ for name, kind in built_in.WORKLOADS.items() if name in BRIEF.workloads})


# ---------------------------------------------------------------- client and observer


@pytest.fixture
def enqueued(tmp_path: Path) -> Iterator[Callable[..., list[Operation]]]:
    """Makes calls on a broker where nobody works; the operations that this leaves."""
    clients: list[ChaosClient] = []

    def make(*operations: Enqueue, settings: Settings) -> list[Operation]:
        recorder = Recorder(tmp_path, "client")
        client = ChaosClient(built_in.app, [settings], recorder)
        clients.append(client)
        client.start(iter([Planned("test", each) for each in operations]))
        until(
            lambda: client.tally.accepted + client.tally.refused + client.tally.unknown >= len(operations) or client.broken,
            what="every call is made",
        )
        client.stop()
        write_facts(tmp_path, RunFacts("brief", "sqlite", 1, 3.0, 5, 1, 1, 2, 0.0))
        return list(read_history(tmp_path).of(Verb.ENQUEUE))

    yield make
    for client in clients:
        client.close()


def test_a_call_is_written_down_before_and_after_it_is_made(enqueued: Any, tmp_path: Path) -> None:
    settings = Settings(broker_url=f"sqlite:///{tmp_path}/stem.db")
    options = {"priority": 7, "countdown": 5.0, "max_retries": 2}
    before, after = enqueued(Enqueue(0, double.name, [1], options=options), settings=settings)
    assert (before.phase, after.phase) == (Phase.INVOKE, Phase.OK)
    assert before.task_id == after.task_id is not None
    said = {
        "workload": "test",
        "task": double.name,
        "args": [1],
        "queue": "default",
        "priority": 7,
        "delay": 5.0,
        "max_retries": 2,
    }
    assert said.items() <= before.detail.items()


def test_an_id_that_is_taken_is_a_refusal(enqueued: Any, tmp_path: Path) -> None:
    settings = Settings(broker_url=f"sqlite:///{tmp_path}/stem.db")
    twice = Enqueue(0, double.name, [1], options={"task_id": "chosen"})
    operations = enqueued(twice, twice, settings=settings)
    assert [each.phase for each in operations] == [Phase.INVOKE, Phase.OK, Phase.INVOKE, Phase.FAIL]
    assert operations[-1].detail["error"] == "DuplicateTaskId"


def test_a_call_without_an_answer_is_written_down_as_unknown_with_the_id_that_it_had(enqueued: Any) -> None:
    before, after = enqueued(Enqueue(0, double.name, [1]), settings=Settings(broker_url="redis://127.0.0.1:1/0"))
    assert (before.phase, after.phase) == (Phase.INVOKE, Phase.INFO)
    assert before.task_id == after.task_id is not None
    assert after.detail["error"] == "BrokerUnavailable"


def test_a_broker_that_is_empty_is_not_waited_for_though_tasks_never_ended(tmp_path: Path) -> None:
    settings = Settings(broker_url=f"sqlite:///{tmp_path}/stem.db")
    recorder = Recorder(tmp_path, "client")
    client = ChaosClient(built_in.app, [settings], recorder)
    observer = Observer(settings, client, recorder)
    observer.start()
    client.adopt("lost", Phase.OK)
    assert observer.await_quiet(60.0, lambda: None) is False
    observer.stop()
    observer.finish(["default"])
    observer.close()
    client.close()
    write_facts(tmp_path, RunFacts("brief", "sqlite", 1, 3.0, 5, 1, 1, 2, 0.0))
    (seen,) = read_history(tmp_path).of(Verb.OBSERVE)
    assert (seen.task_id, seen.detail["state"]) == ("lost", "queued")


def test_what_is_kept_after_a_task_is_not_among_the_keys() -> None:
    import redis

    url, namespace = shared_url(), "measured"
    settings = Settings(broker_url=url, namespace=namespace)
    with redis.Redis.from_url(url, protocol=2) as client:
        try:
            for name in ("result:1", "results", "names", "{a}:dead", "{a}:dead:tasks", "{a}:p5", "{result:a}:meta", "senders"):
                client.set(f"{namespace}:{name}", 1)
            assert count_broker(settings)["keys"] == 3
        finally:
            flush_namespace(client, namespace)


# ---------------------------------------------------------------- leaving


def left(exits: list[int], *operations: Operation) -> Validity:
    facts = RunFacts("brief", "sqlite", 1, 3.0, 5, 1, 1, 2, 0.0, ended_at=50.0, exits=exits)
    return check_leaving(History(facts, operations)).validity


def fault(call: int, phase: Phase, at: float, **detail: Any) -> Operation:
    return Operation(Verb.FAULT, phase, call, "nemesis", 1, at, at, detail=detail)


def replaced(code: int) -> list[Operation]:
    begun = fault(1, Phase.INVOKE, 10.0, fault="replace", target="node1")
    return [begun, fault(1, Phase.OK, 12.0, fault="replace", target="node1", exit=code, pids=[7] if code < 0 else [])]


def test_nodes_that_leave_with_zero_are_well() -> None:
    assert left([0, 0], *replaced(0)) is Validity.VALID


def test_a_node_that_had_to_be_killed_is_found() -> None:
    assert left([0, -9]) is Validity.INVALID
    assert left([0], *replaced(-9)) is Validity.INVALID


def test_a_node_that_a_fault_hit_while_it_left_is_not_blamed() -> None:
    hit = [fault(2, Phase.INVOKE, 11.0, fault="kill-node"), fault(2, Phase.OK, 11.5, fault="kill-node", pids=[7])]
    assert left([0], *replaced(-9), *hit) is Validity.VALID


def test_a_run_that_ended_early_says_nothing_of_leaving() -> None:
    assert left([]) is Validity.UNKNOWN


def test_a_directory_that_cannot_be_made_is_the_operators_business(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="cannot be made"):
        Run(replace(orders(tmp_path), directory=tmp_path / "file/run"), untold).carry_out()
