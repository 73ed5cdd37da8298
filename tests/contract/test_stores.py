"""Locks, revocations, heartbeats and the control bus."""

from __future__ import annotations

from stem_actors.ports import Lock, Revocation, Stores
from stem_actors.testing import ManualClock
from tests.contract.fabric import PROMPTLY, Fabric, meanwhile

LONG = 30.0


# ---------------------------------------------------------------- locks


def test_a_lock_has_one_owner_while_it_is_held(stores: Stores) -> None:
    lock = stores.locks.acquire("key", "me")
    assert lock is not None
    assert stores.locks.owner_of("key") == "me"
    assert stores.locks.acquire("key", "you") is None
    assert stores.locks.acquire("another key", "you") is not None
    assert stores.locks.acquire("key", "me") == lock, "its own holder acquires it again with the same fence"
    assert stores.locks.release(lock)
    assert stores.locks.owner_of("key") is None
    assert not stores.locks.release(lock)


def test_a_lock_expires_unless_it_is_renewed(stores: Stores, clock: ManualClock) -> None:
    lock = stores.locks.acquire("key", "me", ttl=10)
    assert lock is not None
    clock.advance(9)
    assert stores.locks.renew(lock, ttl=10)
    clock.advance(9)
    assert stores.locks.owner_of("key") == "me"
    clock.advance(2)
    assert stores.locks.owner_of("key") is None
    assert not stores.locks.renew(lock)
    assert not stores.locks.release(lock)
    assert stores.locks.acquire("key", "you") is not None


def test_the_fence_grows_with_every_acquisition(stores: Stores, clock: ManualClock) -> None:
    fences = []
    for number in range(6):
        lock = stores.locks.acquire("key", f"owner-{number}", ttl=10)
        assert lock is not None
        fences.append(lock.fence)
        if number % 2:
            stores.locks.release(lock)
        clock.advance(11)
    assert fences == sorted(set(fences))


def test_only_the_holder_of_the_current_fence_renews_or_releases(stores: Stores, clock: ManualClock) -> None:
    old = stores.locks.acquire("key", "me", ttl=10)
    assert old is not None
    clock.advance(11)
    new = stores.locks.acquire("key", "me", ttl=10)
    assert new is not None
    assert not stores.locks.renew(old)
    assert not stores.locks.release(old)
    assert not stores.locks.release(Lock("key", "you", new.fence))
    assert stores.locks.owner_of("key") == "me"


def test_two_namespaces_hold_their_own_locks(fabric: Fabric) -> None:
    assert fabric.open("one").locks.acquire("key", "me") is not None
    assert fabric.open("other").locks.acquire("key", "you") is not None
    assert fabric.open("one").locks.owner_of("key") == "me"


# ---------------------------------------------------------------- revocations


def test_revocations_get_growing_versions_and_are_listed_in_their_order(stores: Stores) -> None:
    first, second = stores.revocations.upsert_all(
        [Revocation("a", terminate=True, reason="why", requested_by="op", issued_at=1.0), Revocation("b")]
    )
    assert 0 < first.version < second.version
    assert stores.revocations.list_since() == [first, second]
    assert stores.revocations.list_since(first.version) == [second]
    assert stores.revocations.list_since(limit=1) == [first]
    assert stores.revocations.list_since(second.version) == []
    assert (first.terminate, first.reason, first.requested_by, first.issued_at) == (True, "why", "op", 1.0)


def test_the_newest_revocation_of_a_task_stands(stores: Stores) -> None:
    (old,) = stores.revocations.upsert_all([Revocation("a")])
    (new,) = stores.revocations.upsert_all([Revocation("a", terminate=True)])
    assert new.version > old.version
    assert stores.revocations.list_since() == [new]


def test_expired_revocations_are_not_listed_and_pruned(fabric: Fabric, stores: Stores, clock: ManualClock) -> None:
    stores.revocations.upsert_all([Revocation("a", expires_at=clock.now() + 10), Revocation("b")])
    fabric.open("other").revocations.upsert_all([Revocation("a", expires_at=clock.now() + 10)])
    assert stores.revocations.prune_expired() == 0
    clock.advance(11)
    assert [each.task_id for each in stores.revocations.list_since()] == ["b"]
    assert stores.revocations.prune_expired() == 1
    assert fabric.open("other").revocations.prune_expired() == 1


# ---------------------------------------------------------------- heartbeats


def test_the_last_heartbeat_of_each_worker_is_listed_until_it_expires(stores: Stores, clock: ManualClock) -> None:
    snapshot = {"workerId": "b", "queues": [{"name": "q", "inflight": 2}], "extras": {"loadAvg": [0.5, 1.0, 2.0]}, "last": None}
    stores.heartbeats.put_heartbeat("b", {"old": True}, 60)
    stores.heartbeats.put_heartbeat("b", snapshot, 60)
    clock.advance(30)
    stores.heartbeats.put_heartbeat("a", {"workerId": "a"}, 60)
    assert stores.heartbeats.list_heartbeats() == [{"workerId": "a"}, snapshot]
    clock.advance(31)
    assert stores.heartbeats.list_heartbeats() == [{"workerId": "a"}]


def test_two_namespaces_have_their_own_heartbeats(fabric: Fabric) -> None:
    fabric.open("one").heartbeats.put_heartbeat("a", {}, 60)
    assert fabric.open("other").heartbeats.list_heartbeats() == []


# ---------------------------------------------------------------- control bus


def test_every_reader_gets_what_was_sent_after_its_cursor(fabric: Fabric, stores: Stores) -> None:
    bus = stores.control
    bus.send("all", b"before", 60)
    readers = [fabric.open().control for _ in range(2)]
    cursors = [reader.cursor(["all", "me"]) for reader in readers]
    bus.send("all", b"1", 60)
    bus.send("you", b"not mine", 60)
    bus.send("me", b"2", 60)
    for reader, cursor in zip(readers, cursors, strict=True):
        messages, behind = reader.pull(["all", "me"], cursor)
        assert messages == [b"1", b"2"]
        assert reader.pull(["all", "me"], behind) == ([], behind)


def test_messages_are_pulled_page_by_page(stores: Stores) -> None:
    cursor = stores.control.cursor(["all"])
    for number in range(5):
        stores.control.send("all", b"%d" % number, 60)
    pages = []
    for _ in range(3):
        messages, cursor = stores.control.pull(["all"], cursor, limit=2)
        pages.append(messages)
    assert pages == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


def test_control_messages_are_forgotten(fabric: Fabric, stores: Stores, clock: ManualClock) -> None:
    cursor = stores.control.cursor(["all"])
    stores.control.send("all", b"1", 10)
    clock.advance(11)
    assert stores.control.pull(["all"], cursor)[0] == []
    before = fabric.count_entries()
    stores.broker.sweep()
    assert fabric.count_entries() == before - 1
    later = stores.control.cursor(["all"])
    stores.control.send("all", b"2", 10)
    assert stores.control.pull(["all"], later)[0] == [b"2"]


def test_a_waiting_reader_hears_of_a_message_at_once(fabric: Fabric) -> None:
    reader, writer = fabric.open().control, fabric.open().control
    cursor = reader.cursor(["all"])
    with meanwhile(reader.pull, ["all"], cursor, 100, LONG) as pulled:
        writer.send("all", b"1", 60)
        assert pulled.result(PROMPTLY)[0] == [b"1"]


def test_a_reader_that_waits_in_vain_returns_after_its_time(fabric: Fabric) -> None:
    bus = fabric.open_in_real_time().control
    cursor = bus.cursor(["all"])
    assert bus.pull(["all"], cursor, wait=0.05) == ([], cursor)


def test_two_namespaces_hear_nothing_of_each_other(fabric: Fabric) -> None:
    one, other = fabric.open("one").control, fabric.open("other").control
    cursor = other.cursor(["all"])
    one.send("all", b"1", 60)
    assert other.pull(["all"], cursor)[0] == []


def test_stores_can_be_closed_twice_and_apart(fabric: Fabric) -> None:
    stores = fabric.open()
    stores.broker.close()
    assert stores.locks.acquire("key", "me") is not None
    stores.close()
    stores.close()
