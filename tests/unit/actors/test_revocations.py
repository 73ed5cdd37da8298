from __future__ import annotations

from stem_actors.actors.revocations import InForce
from stem_actors.ports import Revocation
from stem_actors.testing import ManualClock


def test_a_revocation_holds_until_it_expires_and_is_forgotten_then() -> None:
    clock = ManualClock()
    revoked = InForce(clock.now)
    revoked.add([Revocation("a", expires_at=clock.now() + 10, version=1), Revocation("b", version=2)])
    assert revoked.find("a") is not None
    revoked.prune()
    assert len(revoked) == 2
    clock.advance(10)
    assert revoked.find("a") is None
    assert len(revoked) == 2
    revoked.prune()
    assert len(revoked) == 1
    assert revoked.find("b") is not None
    assert revoked.find("c") is None


def test_the_newest_version_stands_whatever_the_order_and_however_often_they_come() -> None:
    clock = ManualClock()
    revoked = InForce(clock.now)
    old = Revocation("a", reason="old", expires_at=clock.now() + 10, version=1)
    new = Revocation("a", reason="new", expires_at=clock.now() + 20, version=2)
    for revocations in ([new, old], [old], [new]):
        revoked.add(revocations)
        assert revoked.find("a") == new
    clock.advance(10)
    revoked.prune()
    assert revoked.find("a") == new
    clock.advance(10)
    revoked.prune()
    assert len(revoked) == 0


def test_a_hundred_thousand_that_come_and_go_leave_nothing() -> None:
    clock = ManualClock()
    revoked = InForce(clock.now)
    for number in range(100_000):
        revoked.add([Revocation(str(number), expires_at=clock.now() + 5, version=number + 1)])
        if number % 1000 == 0:
            clock.advance(1)
            revoked.prune()
            assert len(revoked) <= 5000
    clock.advance(5)
    revoked.prune()
    assert len(revoked) == 0
    assert not revoked._ends
