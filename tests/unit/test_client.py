from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from stem_actors.adapters import open_stores
from stem_actors.client import BULK, Call, CallOptions, Client
from stem_actors.clock import SystemClock
from stem_actors.codecs.msgpack import decode_envelope
from stem_actors.config import Settings
from stem_actors.errors import (
    BrokerUnavailable,
    BulkEnqueueError,
    DuplicateTaskId,
    PayloadError,
    ResultsDisabled,
    StorageFull,
)
from stem_actors.model.control import broadcast_channel, decode_command, unpack_revocation
from stem_actors.model.lifecycle import TaskState
from stem_actors.ports import Message, Revocation, Stores
from stem_actors.testing import ManualClock

OPTIONS = CallOptions("default", 0, 3, None, {}, {})


def call(*args: object, options: CallOptions = OPTIONS) -> Call[None]:
    return Call("shop.mail", args, {}, options)


class Harness:
    """A client on a real SQLite file, whose publications can be made to fail."""

    def __init__(self, path: Path, backend: str | None = None) -> None:
        self.settings = Settings(broker_url=f"sqlite:///{path}", result_backend_url=backend)
        self.clock = ManualClock()
        self.failures: list[Exception | None] = []
        self.published: list[tuple[str, int, int]] = []
        self.pauses: list[float] = []
        self.opened = 0
        self.client = Client(self._connect, self.settings, self.clock, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def _connect(self) -> Stores:
        self.opened += 1
        stores = open_stores(self.settings.broker_url, self.settings.result_backend_url, clock=SystemClock())
        publish = stores.broker.publish

        def publish_or_fail(sender: str, number: int, messages: Sequence[Message]) -> Mapping[str, str]:
            self.published.append((sender, number, len(messages)))
            failure = self.failures.pop(0) if self.failures else None
            others = {} if isinstance(failure, StorageFull) else publish(sender, number, messages)
            if failure is not None:
                raise failure  # for a broker that is away: the message is stored, its answer is lost
            return others

        stores.broker.publish = publish_or_fail  # type: ignore[method-assign]  # the fault between client and broker
        return stores

    def pending(self) -> int:
        return sum(depth.pending for depth in self.client.stores.broker.depths())


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "stem.db")
    yield made
    made.client.close()


def taken(harness: Harness) -> list[Message]:
    intake = harness.client.stores.broker.open_intake(["default"], "me#1")
    handouts = intake.receive(10_000, 0)
    intake.close()
    return [Message(each.id, each.lease.queue, 0, each.body) for each in handouts]


def test_nothing_is_opened_before_the_first_use(harness: Harness, tmp_path: Path) -> None:
    assert harness.opened == 0
    assert list(tmp_path.iterdir()) == []
    harness.client.close()
    assert harness.opened == 0


def test_what_was_enqueued_can_be_received(harness: Harness) -> None:
    options = replace(OPTIONS, priority=4, headers={"tenant": "a"}, meta={"k": 1}, visibility_timeout=5.0)
    task_id = harness.client.enqueue(Call("shop.mail", ("a@b.c",), {"copies": 2}, options))
    (message,) = taken(harness)
    envelope = decode_envelope(message.body)
    assert (envelope.id, envelope.name, envelope.args, envelope.kwargs) == (task_id, "shop.mail", ["a@b.c"], {"copies": 2})
    assert (envelope.priority, envelope.max_retries, envelope.visibility_timeout) == (4, 3, 5.0)
    assert (envelope.headers, envelope.meta, envelope.expires_at) == ({"tenant": "a"}, {"k": 1}, None)
    assert envelope.enqueued_at == harness.clock.now()


def test_expires_counts_from_the_enqueue(harness: Harness) -> None:
    harness.clock.advance(100)
    harness.client.enqueue(call(options=replace(OPTIONS, expires_in=60.0)))
    harness.client.enqueue(call(options=replace(OPTIONS, expires_at=5.0, expires_in=60.0)))
    assert [decode_envelope(m.body).expires_at for m in taken(harness)] == [harness.clock.now() + 60, 5.0]


def test_an_eta_is_not_due_at_once(harness: Harness) -> None:
    harness.client.enqueue(call(options=replace(OPTIONS, eta=harness.clock.now() + 60)))
    harness.client.enqueue(call(options=replace(OPTIONS, countdown=60.0)))
    harness.client.enqueue(call(options=replace(OPTIONS, countdown=60.0, eta=harness.clock.now() - 60)))
    (depth,) = harness.client.stores.broker.depths()
    assert (depth.delayed, depth.pending) == (2, 1)


def test_a_publication_whose_answer_was_lost_is_repeated_and_adds_nothing(harness: Harness) -> None:
    harness.failures = [BrokerUnavailable("gone"), BrokerUnavailable("gone"), None]
    harness.client.enqueue(call())
    assert harness.pending() == 1
    sender = harness.published[0][0]
    assert harness.published == [(sender, 1, 1)] * 3
    harness.client.enqueue(call())
    assert harness.published[-1] == (sender, 2, 1)


def test_pauses_between_repetitions_grow_and_vary(harness: Harness) -> None:
    harness.failures = [BrokerUnavailable("gone")] * 6
    harness.client.enqueue(call())
    assert len(harness.pauses) == 6
    assert all(0.02 * 2**n / 2 <= pause <= 0.02 * 2**n for n, pause in enumerate(harness.pauses))


def test_patience_ends_and_the_error_is_raised(harness: Harness) -> None:
    harness.failures = [BrokerUnavailable("gone")] * 100
    with pytest.raises(BrokerUnavailable, match="gone"):
        harness.client.enqueue(call())
    assert 9 <= sum(harness.pauses) <= 10
    harness.failures = []
    harness.client.enqueue(call())
    assert harness.published[-1][1] == 2


def test_errors_that_a_repetition_cannot_cure_are_raised_at_once(harness: Harness) -> None:
    harness.failures = [StorageFull("no room")]
    with pytest.raises(StorageFull):
        harness.client.enqueue(call())
    assert harness.pauses == []


def test_a_chosen_id_is_refused_the_second_time(harness: Harness) -> None:
    options = replace(OPTIONS, task_id="order-17")
    assert harness.client.enqueue(call(options=options)) == "order-17"
    with pytest.raises(DuplicateTaskId, match="order-17"):
        harness.client.enqueue(call(options=options))


def test_many_tasks_go_in_steps_of_a_thousand_and_their_ids_come_in_order(harness: Harness) -> None:
    ids = harness.client.enqueue_many(call(n) for n in range(2 * BULK + 1))
    assert [size for _, _, size in harness.published] == [BULK, BULK, 1]
    assert [number for _, number, _ in harness.published] == [1, 2, 3]
    bodies = [decode_envelope(message.body) for message in taken(harness)]
    assert [(body.id, body.args) for body in bodies] == [(task_id, [n]) for n, task_id in enumerate(ids)]


def test_no_tasks_are_no_publication(harness: Harness) -> None:
    assert harness.client.enqueue_many([]) == []
    assert harness.opened == 0


def test_a_bulk_whose_answer_was_lost_halfway_says_which_ids_are_unknown(harness: Harness) -> None:
    harness.failures = [None, *[BrokerUnavailable("gone")] * 100]
    with pytest.raises(BulkEnqueueError, match="1,000 of 2,500") as caught:
        harness.client.enqueue_many(call(n) for n in range(2500))
    error = caught.value
    assert [len(ids) for ids in (error.stored, error.unknown, error.missing)] == [1000, 1000, 500]
    assert isinstance(error.__cause__, BrokerUnavailable)
    assert {message.id for message in taken(harness)} == {*error.stored, *error.unknown}


def test_a_bulk_that_was_refused_halfway_leaves_nothing_unknown(harness: Harness) -> None:
    harness.failures = [None, StorageFull("no room")]
    with pytest.raises(BulkEnqueueError) as caught:
        harness.client.enqueue_many(call(n) for n in range(2500))
    assert [len(ids) for ids in (caught.value.stored, caught.value.unknown, caught.value.missing)] == [1000, 0, 1500]
    assert {message.id for message in taken(harness)} == set(caught.value.stored)


def test_a_bulk_of_one_step_fails_with_the_error_itself(harness: Harness) -> None:
    harness.failures = [StorageFull("no room")]
    with pytest.raises(StorageFull):
        harness.client.enqueue_many([call(), call()])


def test_an_argument_that_cannot_travel_leaves_a_bulk_unsent(harness: Harness) -> None:
    with pytest.raises(PayloadError, match="argument 0"):
        harness.client.enqueue_many([*(call(n) for n in range(BULK)), call(object())])
    assert harness.published == []


def test_a_message_over_the_limit_is_refused(harness: Harness) -> None:
    with pytest.raises(PayloadError, match="STEM_MAX_PAYLOAD_BYTES"):
        harness.client.enqueue(call("x" * harness.settings.max_payload_bytes))


def test_threads_share_one_sender_with_one_publication_at_a_time(harness: Harness) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: harness.client.enqueue(call(n)), range(200)))
    assert [number for _, number, _ in harness.published] == list(range(1, 201))
    assert len({sender for sender, _, _ in harness.published}) == 1
    assert {message.id for message in taken(harness)} == set(ids)


def enqueue_in_child(harness: Harness, sender: multiprocessing.connection.Connection) -> None:
    harness.published.clear()
    sender.send((harness.client.enqueue(call("child")), harness.published))
    os._exit(0)  # as after any fork: no clean-up of what belongs to the parent


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_enqueues_as_a_sender_of_its_own(harness: Harness) -> None:
    mine = harness.client.enqueue(call("parent"))
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=enqueue_in_child, args=(harness, sender))
    child.start()
    assert receiver.poll(30)
    theirs, published = receiver.recv()
    child.join(30)
    assert published[0][1] == 1
    assert published[0][0] != harness.published[0][0]
    also_mine = harness.client.enqueue(call("parent"))
    assert [message.id for message in taken(harness)] == [mine, theirs, also_mine]


def test_a_closed_client_opens_again(harness: Harness) -> None:
    harness.client.enqueue(call())
    harness.client.close()
    harness.client.close()
    harness.client.enqueue(call())
    assert harness.opened == 2
    assert harness.pending() == 2


def test_a_task_without_a_record_is_queued(harness: Harness) -> None:
    task_id = harness.client.enqueue(call())
    assert harness.client.record(task_id).state is TaskState.QUEUED
    assert harness.client.wait(task_id, 0) is None


def test_without_results_there_is_nothing_to_look_up(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "stem.db", backend="none")
    task_id = harness.client.enqueue(call())
    with pytest.raises(ResultsDisabled, match="STEM_RESULT_BACKEND_URL"):
        harness.client.record(task_id)
    with pytest.raises(ResultsDisabled, match="STEM_RESULT_BACKEND_URL"):
        harness.client.wait(task_id, 1)
    harness.client.close()


def test_a_revocation_is_stored_and_workers_are_told(harness: Harness) -> None:
    control = harness.client.stores.control
    channel = broadcast_channel("stem")
    cursor = control.cursor([channel])
    harness.client.revoke(["a", "b"], terminate=True, reason="wrong address")
    stored = harness.client.stores.revocations.list_since(0)
    assert [(each.task_id, each.terminate, each.reason) for each in stored] == [(t, True, "wrong address") for t in ("a", "b")]
    assert all(each.expires_at == each.issued_at + 7 * 86400 for each in stored)
    (raw,), _ = control.pull([channel], cursor, wait=5)
    command = decode_command(raw)
    assert (command.type, command.is_for("any")) == ("revoke", True)
    told = [Revocation(**unpack_revocation(entry)) for entry in command.payload["revocations"]]
    assert [(each.task_id, each.terminate, each.version) for each in told] == [
        (each.task_id, True, each.version) for each in stored
    ]
